// The codes of element types and ops, as collx/types.py numbers them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace collx {

// The value is the position in DTYPES.
enum class DType : std::uint8_t {
    boolean, int8, uint8, int16, uint16, int32, uint32, int64, uint64,
    float16, bfloat16, float8_e4m3fn, float8_e5m2,
    float32, float64, complex64, complex128,
};

// The value is the position in OPS. Kernels treat `avg` as a sum: dividing is a step of its own.
enum class Op : std::uint8_t { sum, prod, min, max, band, bor, bxor, land, lor, lxor, custom, avg };

inline constexpr int dtype_count = 17;
inline constexpr int op_count = 12;

// Bytes of one element.
constexpr std::size_t item_size(DType dtype) noexcept {
    switch (dtype) {
        case DType::boolean: case DType::int8: case DType::uint8:
        case DType::float8_e4m3fn: case DType::float8_e5m2: return 1;
        case DType::int16: case DType::uint16: case DType::float16: case DType::bfloat16: return 2;
        case DType::int32: case DType::uint32: case DType::float32: return 4;
        case DType::int64: case DType::uint64: case DType::float64: case DType::complex64: return 8;
        case DType::complex128: return 16;
    }
    return 0;
}

}  // namespace collx
