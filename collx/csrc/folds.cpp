// The kernels of two operands, and which dtype has which op.
#include <algorithm>
#include <type_traits>

#include "kernels.hpp"
#include "ops.hpp"
#include "simd.hpp"

namespace collx {
namespace {

template <class T, class Operation>
struct FoldLoop {
    [[gnu::always_inline]] static void run(void* dst, const void* a, const void* b, std::size_t count) noexcept {
        auto* const d = static_cast<Loose<T>*>(dst);
        const auto* const x = static_cast<const Loose<T>*>(a);
        const auto* const y = static_cast<const Loose<T>*>(b);
        COLLX_INDEPENDENT
        for (std::size_t i = 0; i < count; ++i) d[i].value = Operation::template apply<T>(x[i].value, y[i].value);
    }
};

template <class T, class Operation>
Fold2 kernel(Simd simd) noexcept {
    return Compiled<FoldLoop<T, Operation>, void*, const void*, const void*, std::size_t>::at(simd);
}

template <class T>
struct ScaleLoop {
    [[gnu::always_inline]] static void run(void* dst, const void* src, std::size_t count, std::int64_t size) noexcept {
        auto* const d = static_cast<Loose<T>*>(dst);
        const auto* const x = static_cast<const Loose<T>*>(src);
        COLLX_INDEPENDENT
        for (std::size_t i = 0; i < count; ++i) d[i].value = divided<T>(x[i].value, size);
    }
};

template <class T>
Scale divider(Simd simd) noexcept {
    return Compiled<ScaleLoop<T>, void*, const void*, std::size_t, std::int64_t>::at(simd);
}

template <class T>
Fold2 logical(Op op, Simd simd) noexcept {
    switch (op) {
        case Op::land: return kernel<T, And>(simd);
        case Op::lor: return kernel<T, Or>(simd);
        case Op::lxor: return kernel<T, Xor>(simd);
        default: return nullptr;
    }
}

Fold2 boolean(Op op, Simd simd) noexcept {
    switch (op) {
        case Op::sum: case Op::max: case Op::bor: return kernel<Boolean, Or>(simd);
        case Op::prod: case Op::min: case Op::band: return kernel<Boolean, And>(simd);
        case Op::bxor: return kernel<Boolean, Xor>(simd);
        default: return logical<Boolean>(op, simd);
    }
}

// What does not depend on the sign goes by the unsigned type, to compile it once.
template <class T>
Fold2 integer(Op op, Simd simd) noexcept {
    using U = std::make_unsigned_t<T>;
    switch (op) {
        case Op::sum: return kernel<U, Sum>(simd);
        case Op::prod: return kernel<U, Product>(simd);
        case Op::min: return kernel<T, Min>(simd);
        case Op::max: return kernel<T, Max>(simd);
        case Op::band: return kernel<U, BitAnd>(simd);
        case Op::bor: return kernel<U, BitOr>(simd);
        case Op::bxor: return kernel<U, BitXor>(simd);
        default: return logical<U>(op, simd);
    }
}

template <class T>
Fold2 real(Op op, Simd simd) noexcept {
    switch (op) {
        case Op::sum: case Op::avg: return kernel<T, Sum>(simd);
        case Op::prod: return kernel<T, Product>(simd);
        case Op::min: return kernel<T, Min>(simd);
        case Op::max: return kernel<T, Max>(simd);
        default: return logical<T>(op, simd);
    }
}

// Products stay with AVX2, which has no FMA: with AVX-512, GCC 12 makes vfmaddsub of them whatever -ffp-contract says.
template <class T>
Fold2 complex(Op op, Simd simd) noexcept {
    switch (op) {
        case Op::sum: case Op::avg: return kernel<T, Sum>(simd);
        case Op::prod: return kernel<T, Product>(std::min(simd, Simd::avx2));
        default: return logical<T>(op, simd);
    }
}

}  // namespace

Fold2 fold2(DType dtype, Op op, Simd simd) noexcept {
    switch (dtype) {
        case DType::boolean: return boolean(op, simd);
        case DType::int8: return integer<std::int8_t>(op, simd);
        case DType::uint8: return integer<std::uint8_t>(op, simd);
        case DType::int16: return integer<std::int16_t>(op, simd);
        case DType::uint16: return integer<std::uint16_t>(op, simd);
        case DType::int32: return integer<std::int32_t>(op, simd);
        case DType::uint32: return integer<std::uint32_t>(op, simd);
        case DType::int64: return integer<std::int64_t>(op, simd);
        case DType::uint64: return integer<std::uint64_t>(op, simd);
        case DType::float16: return real<Float16>(op, simd);
        case DType::bfloat16: return real<BFloat16>(op, simd);
        case DType::float8_e4m3fn: return real<Float8E4M3FN>(op, simd);
        case DType::float8_e5m2: return real<Float8E5M2>(op, simd);
        case DType::float32: return real<float>(op, simd);
        case DType::float64: return real<double>(op, simd);
        case DType::complex64: return complex<Complex<float>>(op, simd);
        case DType::complex128: return complex<Complex<double>>(op, simd);
    }
    return nullptr;
}

Scale scale(DType dtype, Simd simd) noexcept {
    switch (dtype) {
        case DType::float16: return divider<Float16>(simd);
        case DType::bfloat16: return divider<BFloat16>(simd);
        case DType::float8_e4m3fn: return divider<Float8E4M3FN>(simd);
        case DType::float8_e5m2: return divider<Float8E5M2>(simd);
        case DType::float32: return divider<float>(simd);
        case DType::float64: return divider<double>(simd);
        case DType::complex64: return divider<Complex<float>>(simd);
        case DType::complex128: return divider<Complex<double>>(simd);
        default: return nullptr;
    }
}

}  // namespace collx
