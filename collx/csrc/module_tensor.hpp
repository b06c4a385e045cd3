// torch's tensors, read in C by DLPack's exchange interface, which their type offers.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>
#include <cstdint>

namespace collx {

struct Tensor {
    std::byte* data = nullptr;
    std::uint64_t bytes = 0;
    std::uint32_t dtype = 0;  // a number of its own for each
    int dimensions = 0;
    const std::int64_t* shape = nullptr;  // the tensor's own
};

// Makes tensors readable, where torch has been imported by now and has what it takes.
void find_torch();

// False for what is no tensor of exactly torch's own types, and for one that is not contiguous memory of the CPU.
bool read_tensor(PyObject* object, Tensor& tensor);

}  // namespace collx
