/* Make files in folders 0..39 of a root, two events each, at a rate.

   flood <root> <files> <files a second, 0: as fast as it goes> <what names begin with> */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

int main(int count, char **words) {
    if (count != 5) return 2;
    long files = atol(words[2]), rate = atol(words[3]);
    int folders[40];
    char name[512];
    for (int n = 0; n < 40; n++) {
        snprintf(name, sizeof name, "%s/%d", words[1], n);
        if ((folders[n] = open(name, O_RDONLY | O_DIRECTORY)) < 0) return 1;
    }
    double began = now();
    for (long n = 0; n < files; n++) {
        if (rate && n % 50 == 0) {
            double ahead = (double)n / rate - (now() - began);
            if (ahead > 0) usleep(ahead * 1e6);
        }
        snprintf(name, sizeof name, "%s%ld", words[4], n);
        int fd = openat(folders[n % 40], name, O_CREAT | O_WRONLY, 0600);
        if (fd < 0) return 1;
        close(fd);
    }
    return 0;
}
