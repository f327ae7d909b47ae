// What kernel functions are evaluated at. Included after kernel_functions.h, hence once per instruction set and
// without a guard.

namespace wgk {
namespace WGK_ISA {

// From z_i . z_j: the squared distance with the sum of the points' squared norms, or the product of the points as they
// are with the sum of their shifts.
template <class K, class V>
WGK_INLINE V pair_argument(V dots, V norms) {
  if constexpr (K::kOfProducts) {
    return dots + norms;
  } else {
    const V s = fma(dots, V{} - 2, norms);
    const V least = K::kOfRoot ? norms * static_cast<std::remove_reference_t<decltype(s[0])>>(kCoincident) : V{};
    return s <= least ? V{} : s;  // keeps NaN
  }
}

// Calls f with the c-th kernel function of the mixture.
template <class T, class F>
WGK_INLINE decltype(auto) with_component(const KernelMixture& mixture, int64_t c, const F& f) {
  return with_kernel<T>(static_cast<KernelKind>(mixture.kinds[c]), mixture.thetas[c], mixture.shapes[c], f);
}

}  // namespace WGK_ISA
}  // namespace wgk
