// What lets Python's garbage collector see through objects of C++ that hold objects of Python: a user's op may refer to
// the communicator whose plans refer to the op.
#pragma once

#include <nanobind/nanobind.h>

namespace collx {

// Type has traverse(visit, arg) and clear().
template <typename Type>
int traverse(PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    return nanobind::inst_ready(self) ? nanobind::inst_ptr<Type>(self)->traverse(visit, arg) : 0;
}

template <typename Type>
int clear(PyObject* self) {
    if (nanobind::inst_ready(self)) nanobind::inst_ptr<Type>(self)->clear();
    return 0;
}

// With the methods that Python calls without nanobind's dispatch, if any.
template <typename Type>
struct Collectable {
    explicit Collectable(PyMethodDef* methods = nullptr) {
        if (methods != nullptr) slots[2] = {Py_tp_methods, methods};
    }
    PyType_Slot slots[4] = {{Py_tp_traverse, reinterpret_cast<void*>(&traverse<Type>)},
                            {Py_tp_clear, reinterpret_cast<void*>(&clear<Type>)},
                            {0, nullptr},
                            {0, nullptr}};
};

}  // namespace collx
