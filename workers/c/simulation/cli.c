/* cli.c: rb-simulation-cli, the simulation without a link, for tests: a request on stdin, its answer on stdout.
 *
 * "cluster" among the arguments means that operation; --simd NAME as for the worker. Exit status 0 with the answer, or 1 with one
 * line "code message" on stderr. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster.h"
#include "simd.h"
#include "simulate.h"

static int never(void *arg) {
    (void)arg;
    return 0;
}

static void nowhere(void *arg, const uint8_t bytes[CLUSTER_PROGRESS_BYTES]) {
    (void)arg;
    (void)bytes;
}

static char *read_all(size_t *size) {
    size_t most = 1 << 16;
    char *bytes = malloc(most);
    *size = 0;
    while (bytes != NULL) {
        size_t got = fread(bytes + *size, 1, most - *size, stdin);
        *size += got;
        if (*size < most) return bytes;
        char *more = realloc(bytes, most *= 2);
        if (more == NULL) free(bytes);
        bytes = more;
    }
    return NULL;
}

static enum sim_code cluster(const void *request, size_t size, char **answer, size_t *answer_bytes,
                             char *message) {
    const struct cluster_watch watch = {never, nowhere, NULL};
    struct cluster c;
    enum sim_code code = cluster_open(&c, request, size, message);
    if (code == SIM_OK) code = cluster_run(&c, message, &watch);
    if (code == SIM_OK) {
        *answer_bytes = cluster_answer_bytes(&c);
        *answer = malloc(*answer_bytes);
        if (*answer == NULL)
            code = SIM_NO_MEMORY;
        else
            cluster_answer(&c, *answer);
    }
    cluster_close(&c);
    return code;
}

int main(int argc, char **argv) {
    char message[SIM_MESSAGE_BYTES] = "";
    if (argc == 2 && strcmp(argv[1], "--nodes") == 0) {
        for (int i = 0; i <= RADAU_STAGES; i++) printf("%.17g\n", radau_nodes[i]);
        return 0;
    }
    if (sim_simd_arguments(argc, argv) < 0) return 64;
    size_t size, answer_bytes = 0;
    char *request = read_all(&size), *answer = malloc(SIM_ANSWER_BYTES_MAX);
    enum sim_code code = SIM_NO_MEMORY;
    if (request == NULL || answer == NULL) {
        /* as it says */
    } else if (argc > 1 && strcmp(argv[1], "cluster") == 0) {
        free(answer);
        answer = NULL;
        code = cluster(request, size, &answer, &answer_bytes, message);
    } else {
        code = simulate(request, size, answer, &answer_bytes, message, never, NULL);
    }
    int status = 0;
    if (code != SIM_OK) {
        fprintf(stderr, "%d %s\n", code, message);
        status = 1;
    } else if (fwrite(answer, 1, answer_bytes, stdout) != answer_bytes) {
        status = 2;
    }
    free(request);
    free(answer);
    return status;
}
