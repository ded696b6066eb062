// Drives the plugin as TensorRT does, without TensorRT: creates it, asks all that a builder asks,
// serializes and recreates it and, where there is a GPU, runs `enqueue` and compares every index
// and margin with the score's definition.
//
//   drive_plugin libedgekit_tensorrt.so
#include <NvInferRuntime.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "reference.h"

namespace {

using namespace nvinfer1;

[[noreturn]] void fail(const std::string& what) {
  std::printf("FAILED: %s\n", what.c_str());
  std::exit(1);
}

void expect(bool condition, const char* what) {
  if (!condition) fail(what);
}

class Listener final : public ILogger, public ILoggerFinder {
 public:
  void log(Severity, const AsciiChar* text) noexcept override { last = text; }
  ILogger* findLogger() override { return this; }
  std::string last;
};

Listener listener;

// The plugin's own creator, straight from its library.
IPluginCreatorV3One* creator_of_library(const char* path) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) fail(dlerror());
  using GetCreators = IPluginCreatorInterface* const* (*)(int32_t&);
  using SetFinder = void (*)(ILoggerFinder*);
  const auto get_creators = reinterpret_cast<GetCreators>(dlsym(library, "getCreators"));
  const auto set_finder = reinterpret_cast<SetFinder>(dlsym(library, "setLoggerFinder"));
  expect(get_creators != nullptr && set_finder != nullptr, "an export is missing");
  set_finder(&listener);
  int32_t count = 0;
  IPluginCreatorInterface* const* creators = get_creators(count);
  expect(count == 1, "one creator");
  return static_cast<IPluginCreatorV3One*>(creators[0]);
}

std::unique_ptr<IPluginV3> create(IPluginCreatorV3One* creator, const char* metric, int32_t margin,
                                  TensorRTPhase phase = TensorRTPhase::kBUILD) {
  const PluginField fields[] = {
      {"metric", metric, PluginFieldType::kCHAR, static_cast<int32_t>(std::strlen(metric))},
      {"margin", &margin, PluginFieldType::kINT32, 1}};
  const PluginFieldCollection collection{2, fields};
  return std::unique_ptr<IPluginV3>(creator->createPlugin("node", &collection, phase));
}

IPluginV3OneBuild* build_side(IPluginV3* plugin) {
  return static_cast<IPluginV3OneBuild*>(
      plugin->getCapabilityInterface(PluginCapabilityType::kBUILD));
}

IPluginV3OneRuntime* run_side(IPluginV3* plugin) {
  return static_cast<IPluginV3OneRuntime*>(
      plugin->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
}

PluginTensorDesc tensor(DataType type, std::vector<int64_t> dims) {
  PluginTensorDesc desc{};
  desc.dims.nbDims = static_cast<int32_t>(dims.size());
  for (size_t i = 0; i < dims.size(); ++i) desc.dims.d[i] = dims[i];
  desc.type = type;
  desc.format = TensorFormat::kLINEAR;
  return desc;
}

DynamicPluginTensorDesc dynamic(const PluginTensorDesc& desc) {
  return {desc, desc.dims, desc.dims, desc.dims};
}

class Expression final : public IDimensionExpr {};
class Builder final : public IExprBuilder {};

void check_builder_side(IPluginV3* plugin, bool margin) {
  IPluginV3OneBuild* build = build_side(plugin);
  expect(build->getNbOutputs() == (margin ? 2 : 1), "number of outputs");
  const int32_t outputs = build->getNbOutputs();
  DataType types[2];
  const DataType inputs[] = {DataType::kHALF, DataType::kFLOAT};
  expect(build->getOutputDataTypes(types, outputs, inputs, 2) == 0, "output types");
  expect(types[0] == DataType::kINT64, "indices are INT64");
  expect(!margin || types[1] == DataType::kHALF, "the margin has the features' type");
  Expression m, n, d;
  DimsExprs shapes[2];
  shapes[0].nbDims = shapes[1].nbDims = 2;
  shapes[0].d[0] = &m, shapes[0].d[1] = shapes[1].d[1] = &d, shapes[1].d[0] = &n;
  DimsExprs found[2];
  Builder builder;
  expect(build->getOutputShapes(shapes, 2, nullptr, 0, found, outputs, builder) == 0, "shapes");
  for (int32_t i = 0; i < outputs; ++i) {
    expect(found[i].nbDims == 1 && found[i].d[0] == &m, "outputs are [M]");
  }
  // Which of all types are taken: features, codebook.
  for (const DataType x : {DataType::kFLOAT, DataType::kHALF, DataType::kINT8, DataType::kINT32}) {
    for (const DataType e : {DataType::kFLOAT, DataType::kHALF, DataType::kINT8}) {
      DynamicPluginTensorDesc all[] = {dynamic(tensor(x, {-1, 8})), dynamic(tensor(e, {5, 8})),
                                       dynamic(tensor(DataType::kINT64, {-1})),
                                       dynamic(tensor(x, {-1}))};
      bool taken = true;
      for (int32_t i = 0; i < 2 + outputs; ++i) {
        taken = taken && build->supportsFormatCombination(i, all, 2, outputs);
      }
      const bool wanted = (x == DataType::kFLOAT && e == DataType::kFLOAT) ||
                          (x == DataType::kHALF && e != DataType::kINT8);
      expect(taken == wanted, "types of features and codebook");
      all[2].desc.type = DataType::kINT32;
      expect(!build->supportsFormatCombination(2, all, 2, outputs), "INT32 indices are refused");
    }
  }
  const DynamicPluginTensorDesc good[] = {dynamic(tensor(DataType::kFLOAT, {4, 8})),
                                          dynamic(tensor(DataType::kFLOAT, {5, 8}))};
  const DynamicPluginTensorDesc bad[] = {good[0], dynamic(tensor(DataType::kFLOAT, {5, 7}))};
  expect(build->configurePlugin(good, 2, nullptr, 0) == 0, "configure");
  expect(build->configurePlugin(bad, 2, nullptr, 0) != 0, "unequal widths are refused");
  expect(build->getWorkspaceSize(good, 2, nullptr, outputs) > 0, "workspace");
  expect(build->getTimingCacheID() != nullptr, "timing cache");
}

struct Case {
  int64_t m, n, d;
  bool half;
};

template <typename T>
T* on_device(const std::vector<T>& values) {
  void* memory = nullptr;
  if (cudaMalloc(&memory, values.size() * sizeof(T)) != cudaSuccess) fail("cudaMalloc");
  cudaMemcpy(memory, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice);
  return static_cast<T*>(memory);
}

void run_case(IPluginV3* plugin, const Case& size) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(size.m * size.d));
  std::vector<float> e(static_cast<size_t>(size.n * size.d));
  std::vector<__half> x_half;
  for (float& value : x) {
    value = normal(random);
    if (size.half) {
      x_half.push_back(__float2half(value));
      value = __half2float(x_half.back());
    }
  }
  for (float& value : e) value = normal(random);
  const void* x_device = size.half ? static_cast<void*>(on_device(x_half)) : on_device(x);
  const void* e_device = on_device(e);
  int64_t* index_device = on_device(std::vector<int64_t>(static_cast<size_t>(size.m), -1));
  float* margin_device = on_device(std::vector<float>(static_cast<size_t>(size.m)));

  const PluginTensorDesc inputs[] = {
      tensor(size.half ? DataType::kHALF : DataType::kFLOAT, {size.m, size.d}),
      tensor(DataType::kFLOAT, {size.n, size.d})};
  const PluginTensorDesc outputs[] = {tensor(DataType::kINT64, {size.m}),
                                      tensor(inputs[0].type, {size.m})};
  const DynamicPluginTensorDesc bounds[] = {dynamic(inputs[0]), dynamic(inputs[1])};
  void* workspace = nullptr;
  cudaMalloc(&workspace, build_side(plugin)->getWorkspaceSize(bounds, 2, nullptr, 2));
  cudaStream_t stream;
  cudaStreamCreate(&stream);

  std::unique_ptr<IPluginV3> attached(run_side(plugin)->attachToContext(nullptr));
  IPluginV3OneRuntime* run = run_side(attached.get());
  expect(run->onShapeChange(inputs, 2, outputs, 2) == 0, "onShapeChange");
  const void* const in[] = {x_device, e_device};
  void* const out[] = {index_device, margin_device};
  // Captured before the codebook was ever packed, then twice as it is: the workspace then holds
  // what the first run left.
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  expect(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal) == cudaSuccess, "capture");
  expect(run->enqueue(inputs, outputs, in, out, workspace, stream) == 0, "enqueue, captured");
  expect(cudaStreamEndCapture(stream, &graph) == cudaSuccess, "end of capture");
  expect(cudaGraphInstantiate(&executable, graph, 0) == cudaSuccess, "graph");
  const bool captured = size.m % 2 == 1;
  for (int i = 0; i < 2; ++i) {
    if (captured) {
      expect(cudaGraphLaunch(executable, stream) == cudaSuccess, "graph launch");
    } else {
      expect(run->enqueue(inputs, outputs, in, out, workspace, stream) == 0, "enqueue");
    }
  }
  if (cudaStreamSynchronize(stream) != cudaSuccess) fail(cudaGetErrorString(cudaGetLastError()));
  std::vector<int64_t> index(static_cast<size_t>(size.m));
  std::vector<float> margin(index.size());
  cudaMemcpy(index.data(), index_device, index.size() * sizeof(int64_t), cudaMemcpyDeviceToHost);
  cudaMemcpy(margin.data(), margin_device, margin.size() * (size.half ? 2 : 4),
             cudaMemcpyDeviceToHost);
  for (int64_t i = 0; i < size.m; ++i) {
    const auto expected = edgekit::cuda::defined_lookup(e.data(), size.n, size.d,
                                                        &x[static_cast<size_t>(i * size.d)], false);
    expect(index[static_cast<size_t>(i)] == expected.index, "index");
    if (!size.half) expect(margin[static_cast<size_t>(i)] == expected.margin, "margin");
  }
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
  for (const void* memory : {x_device, e_device}) cudaFree(const_cast<void*>(memory));
  cudaFree(index_device);
  cudaFree(margin_device);
  cudaFree(workspace);
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) {
    std::printf("usage: %s libedgekit_tensorrt.so\n", arguments[0]);
    return 2;
  }
  IPluginCreatorV3One* creator = creator_of_library(arguments[1]);
  expect(creator->getFieldNames()->nbFields == 2, "field names");
  std::unique_ptr<IPluginV3> plugin;
  for (const char* metric : {"l2", "dot"}) {
    for (const int32_t margin : {0, 1}) {
      plugin = create(creator, metric, margin);
      expect(plugin != nullptr, "the creator makes a plugin");
      check_builder_side(plugin.get(), margin == 1);
      // What an engine stores makes an equal plugin.
      const PluginFieldCollection* stored = run_side(plugin.get())->getFieldsToSerialize();
      std::unique_ptr<IPluginV3> again(
          creator->createPlugin("node", stored, TensorRTPhase::kRUNTIME));
      expect(again != nullptr, "the creator reads what was serialized");
      expect(std::strcmp(build_side(again.get())->getTimingCacheID(),
                         build_side(plugin.get())->getTimingCacheID()) == 0,
             "serialized settings are the same");
    }
  }
  expect(create(creator, "cosine", 0) == nullptr, "an unknown metric is refused");
  expect(listener.last.find("'metric'") != std::string::npos, "and named");
  expect(create(creator, "dot", 2) == nullptr, "a wrong margin is refused");
  std::printf("create, query, serialize: ok\n");

  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("enqueue: not run, no CUDA device\n");
    return 0;
  }
  for (const Case& size :
       {Case{1, 1000, 2048, false}, Case{3, 100, 37, false}, Case{49, 1000, 512, false},
        Case{300, 700, 130, false}, Case{1, 1000, 1280, true}, Case{49, 512, 33, true}}) {
    run_case(plugin.get(), size);
  }
  std::printf("enqueue: ok\n");
  return 0;
}
