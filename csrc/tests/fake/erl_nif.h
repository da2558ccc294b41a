/* erl_nif.h: as much of OTP's as the NIF's tables of callers need, played by the test that includes it (test_nif_callers.c): what is
 * monitored when, and which thread comes between, is the test's to choose. No BEAM, no scheduler. */
#ifndef RINGBRIDGE_TESTS_FAKE_ERL_NIF_H
#define RINGBRIDGE_TESTS_FAKE_ERL_NIF_H

#include <stddef.h>

typedef unsigned long ERL_NIF_TERM;
typedef int ErlNifEvent;
typedef struct fake_env ErlNifEnv;
typedef struct fake_type ErlNifResourceType;
typedef struct fake_mutex ErlNifMutex;
typedef struct {
    ERL_NIF_TERM pid;
} ErlNifPid;
typedef struct {
    unsigned long number; /* OTP's is opaque bytes */
} ErlNifMonitor;

void *enif_alloc(size_t size);
void enif_free(void *memory);
void *enif_alloc_resource(ErlNifResourceType *type, size_t size);
void enif_keep_resource(void *object);
void enif_release_resource(void *object);
ErlNifMutex *enif_mutex_create(const char *name);
void enif_mutex_destroy(ErlNifMutex *mutex);
void enif_mutex_lock(ErlNifMutex *mutex);
void enif_mutex_unlock(ErlNifMutex *mutex);
int enif_monitor_process(ErlNifEnv *env, void *object, const ErlNifPid *pid,
                         ErlNifMonitor *monitor);
int enif_demonitor_process(ErlNifEnv *env, void *object, const ErlNifMonitor *monitor);
int enif_is_identical(ERL_NIF_TERM a, ERL_NIF_TERM b);
#define enif_make_pid(env, which) ((void)(env), (which)->pid)

#endif
