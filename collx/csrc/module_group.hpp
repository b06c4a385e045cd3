// What the calls of a group need of the engine's side: copies between their memory and a packed call's.
#pragma once

#include <nanobind/nanobind.h>

namespace collx {

void bind_group(nanobind::module_& module);

}  // namespace collx
