// Printing tensors by the rules of PyTorch's torch/_tensor_str.py.
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

/// How the elements of one tensor are written: all alike, right-aligned in a common width.
class Format {
 public:
  Format(DType dtype, const std::vector<Scalar>& values) : real_(is_floating(dtype)) {
    if (real_) {
      choose_notation(values);
    } else {
      for (const Scalar& value : values) width_ = std::max(width_, write(value).size());
    }
  }

  std::size_t width() const { return width_; }

  std::string aligned(const Scalar& value) const {
    const std::string text = write(value);
    return std::string(width_ - std::min(width_, text.size()), ' ') + text;
  }

 private:
  /// Whole numbers are written "2."; numbers of very different or extreme size in scientific
  /// notation. Only finite values other than zero count.
  void choose_notation(const std::vector<Scalar>& values) {
    std::vector<double> counted;
    for (const Scalar& value : values) {
      const double number = value.to_double();
      if (std::isfinite(number) && number != 0) counted.push_back(number);
    }
    if (counted.empty()) return;
    double smallest = INFINITY;
    double largest = 0;
    for (double number : counted) {
      whole_ = whole_ && number == std::trunc(number);
      smallest = std::min(smallest, std::abs(number));
      largest = std::max(largest, std::abs(number));
    }
    scientific_ = largest / smallest > 1000 || largest > 1e8 || (!whole_ && smallest < 1e-4);
    for (double number : counted) width_ = std::max(width_, write(number).size());
  }

  std::string write(const Scalar& value) const {
    if (value.kind() == Scalar::Kind::Bool) return value.to_int64() != 0 ? "true" : "false";
    if (!real_) return std::to_string(value.to_int64());
    const double number = value.to_double();
    if (std::isnan(number)) return "nan";
    if (std::isinf(number)) return number > 0 ? "inf" : "-inf";
    char text[400];  // the largest double has 309 digits before the point
    std::snprintf(text, sizeof text, scientific_ ? "%.4e" : whole_ ? "%.0f." : "%.4f", number);
    return text;
  }

  bool real_;
  bool whole_ = true;
  bool scientific_ = false;
  std::size_t width_ = 1;
};

/// Writes the nested lists of elements.
class Printer {
 public:
  Printer(std::ostream& out, const Tensor& tensor)
      : out_(out),
        tensor_(tensor),
        shortened_(tensor.numel() > kThreshold),
        format_(tensor.dtype(), shown_elements()) {}

  void print() {
    if (tensor_.numel() == 0) {
      out_ << "[]";
    } else {
      print_dim(0, 0, kPrefix.size());
    }
  }

 private:
  static constexpr std::int64_t kGap = -1;

  /// The positions along dimension `dim` that are shown, with `kGap` for those left out.
  std::vector<std::int64_t> positions(std::size_t dim) const {
    const std::int64_t size = tensor_.shape()[dim];
    std::vector<std::int64_t> result;
    const bool gap = shortened_ && size > 2 * kEdgeItems;
    for (std::int64_t i = 0; i < size; ++i) {
      if (gap && i == kEdgeItems) {
        result.push_back(kGap);
        i = size - kEdgeItems;
      }
      result.push_back(i);
    }
    return result;
  }

  Scalar element(std::int64_t offset) const {
    const Tensor at = detail::make_view(tensor_, {}, {}, tensor_.body()->offset + offset);
    if (is_floating(tensor_.dtype())) return at.item<double>();
    if (tensor_.dtype() == DType::Bool) return at.item<bool>();
    return at.item<std::int64_t>();
  }

  std::vector<Scalar> shown_elements() const {
    std::vector<std::int64_t> offsets;
    if (tensor_.numel() > 0) offsets.push_back(0);
    for (std::size_t dim = 0; dim < tensor_.dim() && !offsets.empty(); ++dim) {
      std::vector<std::int64_t> longer;
      for (std::int64_t offset : offsets) {
        for (std::int64_t i : positions(dim)) {
          if (i != kGap) longer.push_back(offset + i * tensor_.strides()[dim]);
        }
      }
      offsets = std::move(longer);
    }
    std::vector<Scalar> elements;
    for (std::int64_t offset : offsets) elements.push_back(element(offset));
    return elements;
  }

  void print_dim(std::size_t dim, std::int64_t offset, std::size_t indent) {
    if (dim == tensor_.dim()) {
      out_ << format_.aligned(element(offset));
      return;
    }
    const bool innermost = dim + 1 == tensor_.dim();
    const std::size_t a_line =
        innermost ? std::max<std::size_t>(1, (kLineWidth - indent) / (format_.width() + 2)) : 1;
    const std::size_t line_breaks = innermost ? 1 : tensor_.dim() - dim - 1;
    std::size_t written = 0;
    out_ << '[';
    for (std::int64_t i : positions(dim)) {
      if (written > 0 && written % a_line == 0) {
        out_ << ',' << std::string(line_breaks, '\n') << std::string(indent + 1, ' ');
      } else if (written > 0) {
        out_ << ", ";
      }
      if (i == kGap) {
        out_ << (innermost ? " ..." : "...");
      } else {
        print_dim(dim + 1, offset + i * tensor_.strides()[dim], indent + 1);
      }
      ++written;
    }
    out_ << ']';
  }

  std::ostream& out_;
  const Tensor& tensor_;
  bool shortened_;
  Format format_;
};

/// What follows the elements: all that they do not show.
std::vector<std::string> properties(const Tensor& tensor) {
  std::vector<std::string> result;
  const DType dtype = tensor.dtype();
  const bool empty = tensor.numel() == 0;
  if (!tensor.device().is_cpu()) result.push_back(detail::concat("device=", tensor.device()));
  if (empty && tensor.dim() != 1) result.push_back(detail::concat("size=", tensor.shape()));
  const bool implied =
      dtype == DType::Float32 || (!empty && (dtype == DType::Int64 || dtype == DType::Bool));
  if (!implied) result.push_back(detail::concat("dtype=", dtype));
  if (tensor.requires_grad()) result.emplace_back("requires_grad=true");
  return result;
}

}  // namespace

std::ostream& operator<<(std::ostream& out, const Tensor& tensor) {
  if (!tensor.defined()) return out << "tensor(undefined)";
  if (tensor.is_traced()) return out << "tensor(traced, " << tensor.spec() << ')';
  std::ostringstream elements;
  elements << kPrefix;
  Printer(elements, tensor).print();
  std::string text = elements.str();
  for (const std::string& property : properties(tensor)) {
    const std::size_t line = text.size() - (text.rfind('\n') + 1);  // npos + 1 is 0
    const bool fits = line + property.size() + 4 <= kLineWidth;
    text += fits ? ", " : ",\n" + std::string(kPrefix.size(), ' ');
    text += property;
  }
  return out << text << ')';
}

}  // namespace tenon
