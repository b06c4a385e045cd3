// collx._core.Control; module.cpp calls it.
#pragma once

#include <nanobind/nanobind.h>

namespace collx {

void bind_control(nanobind::module_& module);

}  // namespace collx
