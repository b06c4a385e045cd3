// What becomes of control connections in a forked process: it must not keep them open, or peers would not learn of the
// end of the process that has them.
#pragma once

namespace collx {

class Control;

class Forks {
  public:
    static void watch(Control& control);
    static void forget(Control& control);

  private:
    static void before();
    static void after();
    static void in_child();
};

}  // namespace collx
