// Reduction and copy kernels. No kernel allocates, throws or keeps state; all may run on many threads at once.
#pragma once

#include <cstddef>
#include <cstdint>

#include "dtype.hpp"
#include "simd.hpp"

namespace collx {

// dst[i] = a[i] op b[i]. `dst` may be `a` or `b` themselves; it must not overlap them otherwise. Pointers need no
// alignment.
//
// The result has the bits of the NumPy ufunc (ml_dtypes' for its types), except that
//   - the sign and payload of a NaN are not promised (a sum or product of two NaNs takes them from either);
//   - min and max order -0 below +0 (NumPy lets the operands' order decide), so that but for NaNs every op
//     gives the same bits for (a, b) and (b, a);
//   - logical ops give 0 and 1 in the dtype, where NumPy gives bool;
//   - complex products are never contracted to FMA, as NumPy does on some CPUs.
// Types of under 32 bits are computed in float32 and rounded to nearest even once.
using Fold2 = void (*)(void* dst, const void* a, const void* b, std::size_t count);

// The kernel of `op` on `dtype`, for this CPU; nullptr where the dtype has not the op (bitwise on floats and complex,
// min and max on complex, avg on bool and integers, custom).
Fold2 fold2(DType dtype, Op op, Simd simd = widest_simd()) noexcept;

// dst[i] = src[i] / size, by component for complex, in float32 for types of under 32 bits. `dst` may be `src`.
using Scale = void (*)(void* dst, const void* src, std::size_t count, std::int64_t size);

// The kernel that ends an avg; nullptr for bool and integers.
Scale scale(DType dtype, Simd simd = widest_simd()) noexcept;

// Copies `bytes` from `src` to `dst`, which are equal or do not overlap.
void copy(void* dst, const void* src, std::size_t bytes) noexcept;

// The same with stores that bypass the caches, ordered before every later store.
void copy_nt(void* dst, const void* src, std::size_t bytes) noexcept;

// Folds `sources[0..k)` from the left and writes the result to each of `targets[0..m)`. `bytes` is a multiple of the
// item size. A target may be one of the sources; targets and sources must not overlap otherwise, nor targets at all.
// Each source is read once and each target written once. With k == 1 this is a copy, and dtype and op do not matter;
// otherwise fold2(dtype, op) must exist. `streamed` has a bit for every target that is to be stored past the caches.
void fold(DType dtype, Op op, void* const* targets, int m, const void* const* sources, int k, std::size_t bytes,
          std::uint32_t streamed = 0) noexcept;

}  // namespace collx
