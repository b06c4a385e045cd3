// The kernels under C names, for kernels_test.py.
#include "kernels.hpp"

using namespace collx;

extern "C" {

int shim_widest() { return static_cast<int>(widest_simd()); }

// Whether the dtype has the op; runs it if so.
bool shim_fold2(int dtype, int op, int simd, void* dst, const void* a, const void* b, std::size_t count) {
    const Fold2 kernel = fold2(static_cast<DType>(dtype), static_cast<Op>(op), static_cast<Simd>(simd));
    if (kernel) kernel(dst, a, b, count);
    return kernel != nullptr;
}

bool shim_scale(int dtype, int simd, void* dst, const void* src, std::size_t count, std::int64_t size) {
    const Scale kernel = scale(static_cast<DType>(dtype), static_cast<Simd>(simd));
    if (kernel) kernel(dst, src, count, size);
    return kernel != nullptr;
}

void shim_fold(int dtype, int op, void* const* targets, int m, const void* const* sources, int k, std::size_t bytes,
               std::uint32_t streamed) {
    fold(static_cast<DType>(dtype), static_cast<Op>(op), targets, m, sources, k, bytes, streamed);
}

void shim_copy(void* dst, const void* src, std::size_t bytes) { copy(dst, src, bytes); }
void shim_copy_nt(void* dst, const void* src, std::size_t bytes) { copy_nt(dst, src, bytes); }
std::size_t shim_item_size(int dtype) { return item_size(static_cast<DType>(dtype)); }
}
