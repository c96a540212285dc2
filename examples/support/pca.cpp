#include "tenon/examples/support/pca.h"

#include <Eigen/Dense>
#include <algorithm>

namespace examples {
namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// Calls `visit` with consecutive rows of `data` [N, D] as float64, a block at a time, because all
/// of them at once would take eight times the memory of the images.
template <class Visitor>
void for_row_blocks(const tenon::Tensor& data, Visitor visit) {
  constexpr std::int64_t kRows = 2000;
  for (std::int64_t begin = 0; begin < data.size(0); begin += kRows) {
    const std::int64_t rows = std::min(kRows, data.size(0) - begin);
    const tenon::Tensor block = data.narrow(0, begin, rows).to(tenon::DType::Float64).contiguous();
    visit(Eigen::Map<const Matrix>(block.data<double>(), rows, data.size(1)));
  }
}

}  // namespace

double pca_reconstruction_error(const tenon::Tensor& train, const tenon::Tensor& test,
                                std::int64_t components) {
  TENON_CHECK(train.dim() == 2 && test.dim() == 2 && train.size(1) == test.size(1),
              "pca_reconstruction_error: needs [N, D] and [M, D], got ", train.shape(), " and ",
              test.shape());
  const std::int64_t features = train.size(1);
  TENON_CHECK(components >= 1 && components <= features, "pca_reconstruction_error: ", components,
              " components of ", features, " features");

  Eigen::RowVectorXd mean = Eigen::RowVectorXd::Zero(features);
  for_row_blocks(train, [&](const auto& rows) { mean += rows.colwise().sum(); });
  mean /= static_cast<double>(train.size(0));

  Eigen::MatrixXd covariance = Eigen::MatrixXd::Zero(features, features);
  for_row_blocks(train, [&](const auto& rows) {
    const Matrix centred = rows.rowwise() - mean;
    covariance.selfadjointView<Eigen::Lower>().rankUpdate(centred.transpose());
  });
  // Eigenvalues come in increasing order, so the last columns span the principal subspace.
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(covariance);
  const Eigen::MatrixXd basis = solver.eigenvectors().rightCols(components);

  double squared_error = 0;
  for_row_blocks(test, [&](const auto& rows) {
    const Matrix centred = rows.rowwise() - mean;
    squared_error += (centred - centred * basis * basis.transpose()).squaredNorm();
  });
  return squared_error / static_cast<double>(test.numel());
}

}  // namespace examples
