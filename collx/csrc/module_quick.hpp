// Methods that begin in C++, for the sake of calls that end there.
#pragma once

#include <nanobind/nanobind.h>

namespace collx {

void bind_quick(nanobind::module_& module);

}  // namespace collx
