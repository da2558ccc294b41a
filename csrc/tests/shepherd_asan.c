/* shepherd_asan.c: options of the sanitizers for a shepherd, which is started without environment. */
const char *__asan_default_options(void);
const char *__ubsan_default_options(void);

const char *__asan_default_options(void) { return "log_path=" RB_ASAN_LOG ":exitcode=99"; }
const char *__ubsan_default_options(void) { return "log_path=" RB_ASAN_LOG ":exitcode=99"; }
