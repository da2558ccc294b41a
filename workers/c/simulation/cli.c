/* cli.c: rb-simulation-cli, the simulation without a link, for tests: a request on stdin, its answer on stdout.
 *
 * Exit status 0 with the answer, or 1 with one line "code message" on stderr. */
#include <stdio.h>
#include <string.h>

#include "simulate.h"

static int never(void *arg) {
    (void)arg;
    return 0;
}

int main(int argc, char **argv) {
    static char request[1 << 16], answer[SIM_ANSWER_BYTES_MAX], message[SIM_MESSAGE_BYTES];
    if (argc == 2 && strcmp(argv[1], "--nodes") == 0) {
        for (int i = 0; i <= RADAU_STAGES; i++) printf("%.17g\n", radau_nodes[i]);
        return 0;
    }
    size_t size = fread(request, 1, sizeof request, stdin), answer_bytes = 0;
    enum sim_code code = simulate(request, size, answer, &answer_bytes, message, never, NULL);
    if (code != SIM_OK) {
        fprintf(stderr, "%d %s\n", code, message);
        return 1;
    }
    return fwrite(answer, 1, answer_bytes, stdout) == answer_bytes ? 0 : 2;
}
