/* port_echo: the other end of a {packet, 4} Port, the peer without distribution.
 *
 * A packet goes back as it came, its first 8 bytes being the request id by which the Port's owner finds the
 * caller. As good as a port program can be: it reads as much as there is, and answers all whole packets of it
 * in one write, out of the buffer that they were read into.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { READ_MIN = 256 * 1024 };

static size_t packet_size(const unsigned char *p) {
    return 4 + ((size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | (size_t)p[3]);
}

static int write_all(const char *data, size_t count) {
    while (count) {
        ssize_t n = write(STDOUT_FILENO, data, count);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return -1;
        data += n;
        count -= (size_t)n;
    }
    return 0;
}

int main(void) {
    size_t length = 0, capacity = 2 * READ_MIN;
    char *data = malloc(capacity);
    for (;;) {
        size_t whole = 0;
        if (capacity - length < READ_MIN) data = realloc(data, capacity *= 2);
        if (!data) return 1;
        ssize_t n = read(STDIN_FILENO, data + length, capacity - length);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return 0; /* the Port was closed */
        length += (size_t)n;
        while (length - whole >= 4) {
            size_t size = packet_size((unsigned char *)data + whole);
            if (length - whole < size) break;
            whole += size;
        }
        if (write_all(data, whole) < 0) return 0;
        memmove(data, data + whole, length - whole);
        length -= whole;
    }
}
