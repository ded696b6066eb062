// Classifies one image with an OpenVINO bundle of edgekit: classify BUNDLE IMAGE.rgb
//
// IMAGE.rgb holds the bare pixels, RGB, uint8 [height, width, 3], at the model's size (see "input"
// in the bundle's manifest.json): decoding and resizing are left to the program around it.
// Normalization is part of the model. Unlike edgekit.load, this program checks no checksums.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <openvino/openvino.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

std::vector<std::string> read_lines(const fs::path& path) {
  std::ifstream stream(path);
  if (!stream) throw std::runtime_error("cannot read " + path.string());
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

std::vector<std::uint8_t> read_bytes(const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw std::runtime_error("cannot read " + path.string());
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

// `core` owns the operator's library: it must outlive the model.
ov::CompiledModel load(ov::Core& core, const fs::path& bundle) {
  if (!fs::exists(bundle / "model.xml")) {
    throw std::runtime_error(bundle.string() + " is not a bundle for OpenVINO");
  }
  const fs::path plugin = bundle / "libedgekit_openvino.so";
  if (fs::exists(plugin)) core.add_extension(plugin.string());
  auto model = core.read_model((bundle / "model.xml").string());
  ov::PartialShape shape = model->input().get_partial_shape();
  shape[0] = 1;  // one image at a time; a fixed number is faster
  model->reshape(shape);
  // Left to itself OpenVINO computes in bfloat16 where the CPU can, which changes codes.
  return core.compile_model(model, "CPU", ov::hint::inference_precision(ov::element::f32),
                            ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY));
}

bool has_output(const ov::CompiledModel& model, const std::string& name) {
  return std::ranges::any_of(model.outputs(), [&](const ov::Output<const ov::Node>& output) {
    return output.get_names().contains(name);
  });
}

void classify(const fs::path& bundle, const fs::path& image) {
  ov::Core core;
  ov::CompiledModel model = load(core, bundle);
  const std::vector<std::string> labels = read_lines(bundle / "labels.txt");
  const ov::Shape shape = model.input().get_shape();  // 1, height, width, 3
  std::vector<std::uint8_t> pixels = read_bytes(image);
  if (pixels.size() != ov::shape_size(shape)) {
    throw std::runtime_error(image.string() + " has " + std::to_string(pixels.size()) +
                             " bytes, the model takes " + shape.to_string());
  }

  ov::InferRequest request = model.create_infer_request();
  request.set_input_tensor(ov::Tensor(ov::element::u8, shape, pixels.data()));
  request.infer();  // the first call is slower
  const auto start = std::chrono::steady_clock::now();
  request.infer();
  const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - start;

  const ov::Tensor logits = request.get_tensor("logits");
  const float* values = logits.data<const float>();
  const std::size_t classes = logits.get_size();
  if (classes != labels.size()) throw std::runtime_error("labels.txt does not fit the model");
  const std::size_t best = std::max_element(values, values + classes) - values;
  double sum = 0;
  for (std::size_t i = 0; i < classes; ++i) sum += std::exp(values[i] - values[best]);

  std::cout << "label " << labels[best] << "\nprobability " << 1 / sum << '\n';
  if (has_output(model, "code") && request.get_tensor("code").get_size() == 1) {
    std::cout << "code " << *request.get_tensor("code").data<const std::int64_t>() << '\n';
  }
  if (has_output(model, "margin") && request.get_tensor("margin").get_size() == 1) {
    std::cout << "margin " << *request.get_tensor("margin").data<const float>() << '\n';
  }
  std::cout << "milliseconds " << time.count() << '\n';
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: classify BUNDLE IMAGE.rgb\n";
    return 2;
  }
  try {
    classify(argv[1], argv[2]);
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << '\n';
    return EXIT_FAILURE;
  }
  return EXIT_SUCCESS;
}
