/* Spins in a function whose callers are known. With -DINLINED two of them are compiled into their caller; with
 * -DSIGNAL the function runs as a signal handler; with -DTHREAD in a thread of its own. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static volatile unsigned long sink;

__attribute__((noinline)) void spin_known(int unused) {
    (void)unused;
    for (;;) {
        sink = sink * 31 + 7;
    }
}

#ifdef INLINED
#define LAYER static inline __attribute__((always_inline))
#else
#define LAYER __attribute__((noinline))
#endif

LAYER int inner_layer(int depth) {
    volatile int local[40];
    local[depth % 40] = depth;
#ifdef SIGNAL
    signal(SIGUSR1, spin_known);
    kill(getpid(), SIGUSR1);
#else
    spin_known(depth);
#endif
    return local[depth % 40];
}

LAYER int outer_layer(int depth) {
    return inner_layer(depth + 1) + 1;
}

__attribute__((noinline)) int recurse(int depth) {
    volatile char room[123];
    room[depth] = (char)depth;
    int found = depth > 0 ? recurse(depth - 1) : outer_layer(depth);
    return found + room[depth];
}

__attribute__((noinline)) void *thread_main(void *argument) {
    return (char *)argument + recurse(3);
}

int main(void) {
    puts("ready");
    fflush(stdout);
#ifdef THREAD
    pthread_t thread;
    pthread_create(&thread, NULL, thread_main, NULL);
    return pthread_join(thread, NULL);
#else
    return recurse(3) + 1;
#endif
}
