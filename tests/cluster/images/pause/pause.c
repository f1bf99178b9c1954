/* The process that holds a pod's namespaces: waits, reaps orphans, ends when it is told to. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void on_signal(int signal_number) {
    if (signal_number != SIGCHLD) _exit(0);
    while (waitpid(-1, 0, WNOHANG) > 0) continue;
}

int main(void) {
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    signal(SIGCHLD, on_signal);
    for (;;) pause();
}
