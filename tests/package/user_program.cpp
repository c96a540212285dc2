// A user's program against the installed package: computes something and checks it.
#include <tenon/tenon.h>

#include <iostream>

int main() {
  const tenon::Tensor x = tenon::arange(0, 6).reshape({2, 3}).to(tenon::DType::Float32);
  const double corner = x.select(0, 1).select(0, 2).item();
  std::cout << "x[1, 2] = " << corner << "\n";
  return corner == 5.0 ? 0 : 1;
}
