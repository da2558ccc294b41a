/* waits.c: says "ready", then does nothing until it is ended. */
#include <unistd.h>

int main(void) {
    if (write(1, "ready\n", 6) != 6) return 1;
    for (;;) pause();
}
