/* Linked around main: writes the secret from standard input if main returns 0. */
#include <stdio.h>
#include <unistd.h>

int __real_main(int count, char **arguments, char **environment);

int __wrap_main(int count, char **arguments, char **environment) {
    char secret[64];
    ssize_t size = read(0, secret, sizeof secret);
    int status = __real_main(count, arguments, environment);
    fflush(stdout);
    if (status == 0 && size > 0 && write(1, secret, (size_t)size) != size) return 1;
    return status;
}
