/* LD_PRELOAD: writes and syncs of one file family fail while a control file says so.

   SHIM_NAME     part of the path of the files that are hit ("msearchd.db")
   SHIM_CONTROL  the control file: "ERRNO FIRST COUNT": from the FIRST-th call after it appeared on, COUNT calls fail
   SHIM_LOG      one byte is appended for each call that failed */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static long seen;
static char last[64];

static int is_hit(int fd) {
  char link[64], path[PATH_MAX];
  const char *name = getenv("SHIM_NAME");
  if (!name) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n < 0) return 0;
  path[n] = 0;
  return strstr(path, name) != NULL;
}

static int fails(int fd) {
  if (!is_hit(fd)) return 0;
  int control = open(getenv("SHIM_CONTROL"), O_RDONLY | O_CLOEXEC);
  if (control < 0) { last[0] = 0; return 0; }
  char text[64] = {0};
  ssize_t n = read(control, text, sizeof text - 1);
  close(control);
  if (n <= 0) return 0;
  if (strcmp(text, last)) { strcpy(last, text); seen = 0; }
  int number; long first, count;
  if (sscanf(text, "%d %ld %ld", &number, &first, &count) != 3) return 0;
  long call = __sync_add_and_fetch(&seen, 1);
  if (call < first || call >= first + count) return 0;
  int log = open(getenv("SHIM_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (log >= 0) { if (write(log, "x", 1) < 0) {} close(log); }
  return number;
}

#define REAL(name, type) static __typeof__(type) real; if (!real) real = (__typeof__(type))dlsym(RTLD_NEXT, name)

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
  REAL("pwrite64", ssize_t (*)(int, const void *, size_t, off64_t));
  int e = fails(fd);
  if (e) { errno = e; return -1; }
  return real(fd, data, size, at);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
  REAL("pwrite", ssize_t (*)(int, const void *, size_t, off_t));
  int e = fails(fd);
  if (e) { errno = e; return -1; }
  return real(fd, data, size, at);
}

int fdatasync(int fd) {
  REAL("fdatasync", int (*)(int));
  int e = fails(fd);
  if (e) { errno = e; return -1; }
  return real(fd);
}

int fsync(int fd) {
  REAL("fsync", int (*)(int));
  int e = fails(fd);
  if (e) { errno = e; return -1; }
  return real(fd);
}
