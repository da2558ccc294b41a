/* The fuzzers' bodies on their committed corpus and on mutations of it: short, and the same in
 * every run. */
#define _GNU_SOURCE
#include <dirent.h>

#include "fuzz/intake.h"
#include "fuzz/request.h"
#include "fuzz/schema.h"
#include "fuzz/term_check.h"

#undef PUT /* both kinds of bytes have one; that of terms has been used */
#include "fuzz/beam.h"
#include "fuzz/completion.h"
#include "fuzz/lane.h"
#include "fuzz/service.h"

enum { MUTATIONS = 40, MUTATIONS_OF_LANES = 4 }; /* each makes its memory anew */

static void over_corpus(const char *name, int (*body)(const uint8_t *, size_t), int mutations) {
    char path[512];
    int files = 0;
    snprintf(path, sizeof path, "%.*s/corpus/%s", (int)(strrchr(__FILE__, '/') - __FILE__),
             __FILE__, name);
    DIR *folder = opendir(path);
    CHECK(folder != NULL); /* run from csrc, as make does */
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        uint8_t bytes[65536];
        snprintf(path, sizeof path, "%.*s/corpus/%s/%s", (int)(strrchr(__FILE__, '/') - __FILE__),
                 __FILE__, name, entry->d_name);
        FILE *file = entry->d_name[0] == '.' ? NULL : fopen(path, "rb");
        if (!file) continue;
        struct bytes input = exactly(bytes, 0);
        put(&input, bytes, fread(bytes, 1, sizeof bytes, file));
        fclose(file);
        files++;
        uint64_t seed = hash_of(input.at, input.size) | 1; /* whatever order the folder gives */
        body(input.at, input.size);
        for (int i = 0; i < mutations; i++) {
            struct bytes changed = exactly(input.at, input.size);
            mutate(&changed, &seed);
            body(changed.at, changed.size);
            bytes_free(&changed);
        }
        bytes_free(&input);
    }
    if (folder) closedir(folder);
    CHECK(files > 10);
}

static void connections(void) { over_corpus("intake", fuzz_intake, MUTATIONS); }
static void requests(void) { over_corpus("request", fuzz_request, MUTATIONS); }
static void answers(void) { over_corpus("term_check", fuzz_term_check, MUTATIONS); }

static void schemas(void) { over_corpus("schema", fuzz_schema, MUTATIONS); }

static void liars(void) { over_corpus("completion", fuzz_completion, MUTATIONS); }

static void calls(void) { over_corpus("service", fuzz_service, MUTATIONS); }

static void lying_beams(void) { over_corpus("beam", fuzz_beam, MUTATIONS_OF_LANES); }
static void lying_relays(void) { over_corpus("lane", fuzz_lane, MUTATIONS_OF_LANES); }

int main(void) {
    RUN(connections);
    RUN(requests);
    RUN(answers);
    RUN(schemas);
    RUN(calls);
    RUN(liars);
    RUN(lying_beams);
    RUN(lying_relays);
    return check_end();
}
