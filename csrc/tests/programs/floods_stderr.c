/* floods_stderr.c BYTES: writes so many bytes to stderr, then "done" to stdout. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
    static char line[4096];
    long left = argc > 1 ? atol(argv[1]) : 0;

    memset(line, 'x', sizeof line);
    line[sizeof line - 1] = '\n';
    while (left > 0) {
        long size = left < (long)sizeof line ? left : (long)sizeof line;
        ssize_t written = write(2, line, (size_t)size);
        if (written < 0) return 1;
        left -= written;
    }
    return write(1, "done\n", 5) == 5 ? 0 : 1;
}
