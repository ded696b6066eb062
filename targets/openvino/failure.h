// How an operator's inference fails: with an error, and without an answer.
#ifndef EDGEKIT_OPENVINO_FAILURE_H_
#define EDGEKIT_OPENVINO_FAILURE_H_

#include <openvino/runtime/tensor.hpp>
#include <stdexcept>
#include <string>

namespace edgekit {

// Throws what went wrong in `node`, after filling the outputs with what is no answer, NaN and -1.
// With one thread, OpenVINO's synchronous infer() loses the error: whoever reads the outputs then
// would find those of the image before.
[[noreturn]] void fail(ov::TensorVector& outputs, const std::string& node,
                       const std::runtime_error& error);

}  // namespace edgekit

#endif  // EDGEKIT_OPENVINO_FAILURE_H_
