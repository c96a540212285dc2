#include "tenon/core/op.h"

#include <array>
#include <memory_resource>
#include <ostream>

#include "tenon/core/autograd.h"
#include "tenon/core/node.h"
#include "tenon/core/recording.h"
#include "tenon/core/recycled.h"

namespace tenon {
namespace {

thread_local TraceSink* active_trace = nullptr;

struct PrintAttribute {
  std::ostream& out;
  void operator()(bool value) const { out << (value ? "true" : "false"); }
  void operator()(std::int64_t value) const { out << value; }
  void operator()(double value) const { out << value; }
  void operator()(const std::string& value) const { out << value; }
  void operator()(const std::vector<std::int64_t>& values) const {
    out << '[';
    for (std::size_t i = 0; i < values.size(); ++i) out << (i > 0 ? ", " : "") << values[i];
    out << ']';
  }
};

/// The specs of `inputs`, after what holds for those of every op: they exist and live on one
/// device.
void check_inputs(const Op& op, std::span<const Tensor> inputs,
                  std::pmr::vector<TensorSpec>& specs) {
  specs.reserve(inputs.size());
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    TENON_CHECK(inputs[i].defined(), op.name(), ": input ", i, " is an undefined tensor");
    specs.push_back(inputs[i].spec());
    TENON_CHECK(specs[i].device == specs[0].device, op.name(), ": inputs are on ", specs[0].device,
                " and ", specs[i].device, "; move them to one device with to()");
    TENON_CHECK(active_trace != nullptr || !inputs[i].is_traced(), op.name(), ": input ", i,
                " belongs to a trace that has ended");
  }
}

std::vector<Tensor> run_forward(const Op& op, std::span<const Tensor> inputs,
                                std::span<const TensorSpec> specs) {
  const NoGradGuard no_history;
  std::vector<Tensor> outputs = op.forward(inputs, specs);
  for (Tensor& output : outputs) {
    for (const Tensor& input : inputs) {
      // An op may return its input as it is; the result is a tensor of its own all the same.
      if (output.is_same(input)) output = detail::without_history(input);
    }
  }
  return outputs;
}

bool records_history(const Op& op, std::span<const Tensor> inputs) {
  if (!grad_enabled() || !op.differentiable()) return false;
  for (const Tensor& input : inputs) {
    if (input.requires_grad()) return true;
  }
  return false;
}

}  // namespace

std::ostream& operator<<(std::ostream& out, const Attributes& attributes) {
  for (std::size_t i = 0; i < attributes.size(); ++i) {
    out << (i > 0 ? ", " : "") << attributes[i].name << '=';
    std::visit(PrintAttribute{out}, attributes[i].value);
  }
  return out;
}

std::vector<Tensor> Op::backward(const BackwardContext&, std::span<const Tensor>) const {
  detail::fail(detail::concat(name(), ": has no backward"));
}

bool same_op(const Op& a, const Op& b) {
  return a.name() == b.name() && a.attributes() == b.attributes();
}

std::vector<Tensor> call(std::shared_ptr<const Op> op, std::span<const Tensor> inputs) {
  // The specs of a few inputs, and so of nearly all ops, need no memory of the heap.
  alignas(TensorSpec) std::array<std::byte, 4 * sizeof(TensorSpec)> buffer;
  std::pmr::monotonic_buffer_resource memory(buffer.data(), buffer.size());
  std::pmr::vector<TensorSpec> input_specs(&memory);
  check_inputs(*op, inputs, input_specs);
  const std::vector<TensorSpec> output_specs = op->infer(input_specs);
  if (active_trace != nullptr) return active_trace->record(std::move(op), inputs, output_specs);
  detail::Recording* const recording = detail::Recording::current();
  if (recording != nullptr) recording->note_op(op->name(), inputs);
  std::vector<Tensor> outputs = run_forward(*op, inputs, output_specs);
  if (recording != nullptr) recording->note_results(outputs);
  if (records_history(*op, inputs)) {
    const auto node = detail::make_recycled<Node>(std::move(op), inputs, input_specs, outputs);
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      if (is_floating(outputs[i].dtype())) {
        outputs[i].body()->autograd_state().producer = {node, i};
      }
    }
  }
  return outputs;
}

TraceGuard::TraceGuard(TraceSink& sink) : previous_(active_trace) { active_trace = &sink; }
TraceGuard::~TraceGuard() { active_trace = previous_; }

bool is_tracing() { return active_trace != nullptr; }

}  // namespace tenon
