// Spins in a member of a template in a namespace.
#include <cstdio>
#include <vector>

namespace layers {

volatile unsigned long sink;

template <typename T>
struct Spinner {
    std::vector<T> items;
    __attribute__((noinline)) T spin_known(T start) {
        for (;;) {
            sink = sink * 31 + static_cast<unsigned long>(start);
        }
        return items.front();
    }
};

__attribute__((noinline)) int turn(Spinner<int> &spinner, int depth) {
    volatile int local[30];
    local[depth % 30] = spinner.spin_known(depth);
    return local[depth % 30];
}

}  // namespace layers

int main() {
    std::puts("ready");
    std::fflush(stdout);
    layers::Spinner<int> spinner{{1, 2, 3}};
    return layers::turn(spinner, 5);
}
