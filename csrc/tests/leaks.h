/* leaks.h: what this process holds, counted before and after. */
#ifndef RINGBRIDGE_TESTS_LEAKS_H
#define RINGBRIDGE_TESTS_LEAKS_H

#include <dirent.h>
#include <stdio.h>
#include <string.h>

static inline int open_descriptors(void) {
    int count = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (readdir(dir)) count++;
    closedir(dir);
    return count;
}

/* Mappings of files whose name has `name` in it. */
static inline int mappings_of(const char *name) {
    char line[512];
    int count = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, maps)) count += strstr(line, name) != NULL;
    fclose(maps);
    return count;
}

#endif
