// What the passes of group_norm make of the sums over one group. xhat' is what the kernels have for xhat: from a mean
// that was rounded, so that its own mean is not zero; the sums are put right by that mean, `shift`.
#pragma once

#include "common.h"

namespace wgk {

// Of a group with a = weight * grad_y: grad_x = r (a - mean(a) - xhat mean(a xhat)).
struct GroupNormSums {
  double X, A, AX;  // of xhat', a, a xhat'
};

struct GroupNormFactors {
  double shift;          // xhat = xhat' - shift
  double by_x, constant;  // grad_x = r a + by_x xhat + constant

  WGK_HOST_DEVICE GroupNormFactors(const GroupNormSums& sums, double n, double r) {
    shift = sums.X / n;
    by_x = -r * (sums.AX - shift * sums.A) / n;
    constant = -r * sums.A / n;
  }
};

struct GroupNormTangentSums {
  GroupNormSums of;     // xhat' and a
  double U, UX, AU;     // u, u xhat', a u
  double P, PX;         // of p grad_y, p the gradient of grad_weight
};

// With s = u - mean(u) - xhat mean(u xhat), so that S u = r s:
//   grad_grad_y = weight r s + p xhat + q
//   grad_x = r p grad_y + by_a a + by_u u + by_x xhat + constant
struct GroupNormTangentFactors {
  double shift, U, UX;  // means of u and u xhat
  double by_a, by_u, by_x, constant;

  WGK_HOST_DEVICE GroupNormTangentFactors(const GroupNormTangentSums& sums, double n, double r) {
    shift = sums.of.X / n;
    U = sums.U / n;
    UX = (sums.UX - shift * sums.U) / n;
    const double A = sums.of.A / n, AX = (sums.of.AX - shift * sums.of.A) / n;
    const double P = sums.P / n, PX = (sums.PX - shift * sums.P) / n;
    const double along = sums.AU / n - A * U - AX * UX;  // <a, S u> / (n r)
    by_a = -r * r * UX;
    by_u = -r * r * AX;
    by_x = -r * PX - r * r * along + 2 * r * r * UX * AX;
    constant = -r * P + r * r * (UX * A + AX * U);
  }
};

}  // namespace wgk
