// Printing tensors as PyTorch prints them.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ostream>

#include "tenon/core/tensor.h"
#include "tenon/core/tensor_body.h"

namespace tenon {
namespace {

constexpr std::int64_t kEdgeItems = 3;     // shown at each end of a long dimension
constexpr std::int64_t kThreshold = 1000;  // elements from which long dimensions are shortened
constexpr std::size_t kLineWidth = 80;
constexpr std::string_view kPrefix = "tensor(";

/// How the numbers of one tensor are written: all alike, in a common width.
struct Format {
  bool integral = false;  // whole numbers: "2.", or "2" for an integer dtype
  bool scientific = false;
  bool is_real = false;
  bool is_bool = false;
  std::size_t width = 0;

  std::string write(double value) const {
    if (is_bool) return value != 0 ? "true" : "false";
    if (!is_real) return std::to_string(static_cast<std::int64_t>(value));
    if (std::isnan(value)) return "nan";
    if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
    char text[400];
    const char* pattern = scientific ? "%.4e" : integral ? "%.0f." : "%.4f";
    std::snprintf(text, sizeof text, pattern, value);
    return text;
  }
};

/// Walks the elements that are shown.
class Printer {
 public:
  Printer(std::ostream& out, const Tensor& tensor)
      : out_(out), tensor_(tensor), shortened_(tensor.numel() > kThreshold) {
    visit_shown(0, 0, [&](double value) { shown_.push_back(value); });
    choose_format();
  }

  void print() { print_dim(0, 0, kPrefix.size()); }

 private:
  /// The positions along a dimension of `size` that are shown; -1 stands for the gap.
  std::vector<std::int64_t> positions(std::int64_t size) const {
    std::vector<std::int64_t> result;
    const bool gap = shortened_ && size > 2 * kEdgeItems;
    for (std::int64_t i = 0; i < size; ++i) {
      if (gap && i == kEdgeItems) {
        result.push_back(-1);
        i = size - kEdgeItems;
      }
      result.push_back(i);
    }
    return result;
  }

  double value_at(std::int64_t offset) const {
    return detail::make_view(tensor_, {}, {}, tensor_.body()->offset + offset).item<double>();
  }

  template <class Visit>
  void visit_shown(std::size_t dim, std::int64_t offset, Visit&& visit) const {
    if (dim == tensor_.dim()) {
      visit(value_at(offset));
      return;
    }
    for (std::int64_t i : positions(tensor_.shape()[dim])) {
      if (i >= 0) visit_shown(dim + 1, offset + i * tensor_.strides()[dim], visit);
    }
  }

  void choose_format() {
    format_.is_bool = tensor_.dtype() == DType::Bool;
    format_.is_real = is_floating(tensor_.dtype());
    double smallest = INFINITY;  // magnitudes of the finite values that are not zero
    double largest = 0;
    format_.integral = true;
    for (double value : shown_) {
      if (!std::isfinite(value)) continue;
      format_.integral = format_.integral && value == std::trunc(value);
      if (value == 0) continue;
      smallest = std::min(smallest, std::abs(value));
      largest = std::max(largest, std::abs(value));
    }
    if (largest > 0) {
      format_.scientific =
          largest / smallest > 1000 || largest > 1e8 || (!format_.integral && smallest < 1e-4);
      if (format_.integral) format_.scientific = largest > 1e8;
    }
    for (double value : shown_)
      format_.width = std::max(format_.width, format_.write(value).size());
  }

  void print_dim(std::size_t dim, std::int64_t offset, std::size_t indent) {
    if (dim == tensor_.dim()) {
      out_ << format_.write(value_at(offset));
      return;
    }
    out_ << '[';
    if (dim + 1 == tensor_.dim()) {
      print_row(offset, indent + 1);
    } else {
      bool first = true;
      const std::size_t blank_lines = tensor_.dim() - dim - 1;
      for (std::int64_t i : positions(tensor_.shape()[dim])) {
        if (!first) out_ << ',' << std::string(blank_lines, '\n') << std::string(indent + 1, ' ');
        first = false;
        if (i < 0) {
          out_ << "...";
        } else {
          print_dim(dim + 1, offset + i * tensor_.strides()[dim], indent + 1);
        }
      }
    }
    out_ << ']';
  }

  void print_row(std::int64_t offset, std::size_t indent) {
    const std::size_t a_line =
        std::max<std::size_t>(1, (kLineWidth - indent) / (format_.width + 2));
    std::size_t on_line = 0;
    bool first = true;
    const std::size_t dim = tensor_.dim() - 1;
    for (std::int64_t i : positions(tensor_.shape()[dim])) {
      if (!first) out_ << ", ";
      first = false;
      if (on_line == a_line) {
        out_ << '\n' << std::string(indent, ' ');
        on_line = 0;
      }
      const std::string text =
          i < 0 ? "..." : format_.write(value_at(offset + i * tensor_.strides()[dim]));
      if (i >= 0) out_ << std::string(format_.width - text.size(), ' ');
      out_ << text;
      ++on_line;
    }
  }

  std::ostream& out_;
  const Tensor& tensor_;
  bool shortened_;
  std::vector<double> shown_;
  Format format_;
};

}  // namespace

std::ostream& operator<<(std::ostream& out, const Tensor& tensor) {
  if (!tensor.defined()) return out << "tensor(undefined)";
  if (tensor.is_traced()) return out << "tensor(traced, " << tensor.spec() << ')';
  out << kPrefix;
  Printer(out, tensor).print();
  if (tensor.numel() == 0 && tensor.dim() != 1) out << ", size=" << tensor.shape();
  const DType dtype = tensor.dtype();
  const bool implied = dtype == DType::Float32 || dtype == DType::Bool ||
                       (dtype == DType::Int64 && tensor.numel() > 0);
  if (!implied) out << ", dtype=" << dtype;
  if (!tensor.device().is_cpu()) out << ", device=" << tensor.device();
  if (tensor.requires_grad()) out << ", requires_grad=true";
  return out << ')';
}

}  // namespace tenon
