/*
 * cat: copies the named files, or else its standard input, to its standard
 * output. The name "-" stands for standard input.
 *
 * A file that cannot be read is named on stderr; the others are still copied,
 * and the exit code is 1. It is also 1 when the output cannot be written.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void complain(const char *name) {
    fprintf(stderr, "cat: %s: %s\n", name, strerror(errno));
}

/* Copies the rest of `file` to stdout. False: it could not be read to its end. */
static bool copy(FILE *file, const char *name) {
    static char buffer[64 * 1024];
    size_t length;

    while ((length = fread(buffer, 1, sizeof buffer, file)) > 0) {
        if (fwrite(buffer, 1, length, stdout) < length) {
            /* Whatever comes next could not be written either. */
            complain("standard output");
            exit(EXIT_FAILURE);
        }
    }
    if (ferror(file)) {
        complain(name);
        return false;
    }
    return true;
}

static bool copy_named(const char *name) {
    if (strcmp(name, "-") == 0) {
        /* Forget an end that an earlier "-" has met. */
        clearerr(stdin);
        return copy(stdin, "standard input");
    }
    FILE *file = fopen(name, "rb");
    if (file == NULL) {
        complain(name);
        return false;
    }
    bool copied = copy(file, name);
    fclose(file);
    return copied;
}

int main(int argc, char **argv) {
    bool all_copied = true;

    if (argc < 2) {
        all_copied = copy_named("-");
    }
    for (int i = 1; i < argc; i++) {
        if (!copy_named(argv[i])) {
            all_copied = false;
        }
    }
    /* What is still in the buffer may not fit: a full disk shows only here. */
    if (fclose(stdout) != 0) {
        complain("standard output");
        return EXIT_FAILURE;
    }
    return all_copied ? EXIT_SUCCESS : EXIT_FAILURE;
}
