#define _GNU_SOURCE
#include "course.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "ort.h"
#include "text.h"

enum { MAX_ZONES = 16, LAST_ZONE = 128, LOOK_AGAIN_NS = 250000000 };

/* The first bytes of a small file, ended by 0; how many, or -1. A file of sysfs says nothing true of its size. */
static long read_short(const char *path, char *into, size_t room) {
  int file = open(path, O_RDONLY);
  if (file < 0) return -1;
  long got = read(file, into, room - 1);
  close(file);
  into[got > 0 ? got : 0] = 0;
  return got;
}

static long number_in(const char *path) {
  char text[64];
  return read_short(path, text, sizeof text) > 0 ? strtol(text, NULL, 10) : 0;
}

static long zone_value(const Job *job, int zone, const char *what, char *text, size_t room) {
  char *path = printed("%s/class/thermal/thermal_zone%d/%s", job->sysfs, zone, what);
  long got = read_short(path, text, room);
  free(path);
  return got;
}

static int is_of_cpu(const char *type) {
  return strstr(type, "cpu") || strstr(type, "CPU") || strstr(type, "soc") || strstr(type, "x86_pkg");
}

/* The zones that name a processor, else the first of all. */
static void find_zones(Course *course) {
  char type[64];
  for (int only_cpu = 1; only_cpu >= 0 && !course->zone_count; only_cpu--)
    for (int zone = 0; zone < LAST_ZONE && course->zone_count < MAX_ZONES; zone++)
      if (zone_value(course->job, zone, "type", type, sizeof type) > 0 && (!only_cpu || is_of_cpu(type)))
        course->zones[course->zone_count++] = zone;
}

void begin_course(Course *course, const Job *job) {
  memset(course, 0, sizeof *course);
  course->job = job;
  find_zones(course);
}

static int hottest_milli_c(Course *course) {
  int64_t now = clock_ns(CLOCK_MONOTONIC);
  if (course->looked_ns && now - course->looked_ns < LOOK_AGAIN_NS) return course->latest_milli_c;
  course->looked_ns = now;
  course->latest_milli_c = 0;
  for (int i = 0; i < course->zone_count; i++) {
    char text[32];
    if (zone_value(course->job, course->zones[i], "temp", text, sizeof text) <= 0) continue;
    long value = strtol(text, NULL, 10);
    if (value > 0 && value < 150) value *= 1000; /* a few old kernels write whole degrees */
    if (value < 150000 && value > course->latest_milli_c) course->latest_milli_c = (int)value;
  }
  return course->latest_milli_c;
}

static int mhz_of_this_core(const Job *job) {
  unsigned cpu = 0;
  if (syscall(SYS_getcpu, &cpu, NULL, NULL)) return 0;
  char *path = printed("%s/devices/system/cpu/cpu%u/cpufreq/scaling_cur_freq", job->sysfs, cpu);
  long khz = number_in(path);
  free(path);
  return (int)(khz / 1000);
}

void note_round(Course *course) {
  if (course->rounds == course->room) {
    course->room = course->room * 2 + 64;
    course->mhz = realloc(course->mhz, sizeof *course->mhz * (size_t)course->room);
    course->milli_c = realloc(course->milli_c, sizeof *course->milli_c * (size_t)course->room);
    if (!course->mhz || !course->milli_c) give_up("out of memory");
  }
  course->mhz[course->rounds] = mhz_of_this_core(course->job);
  course->milli_c[course->rounds] = hottest_milli_c(course);
  if (!course->first_milli_c) course->first_milli_c = course->milli_c[course->rounds];
  if (course->mhz[course->rounds] > course->fastest_mhz) course->fastest_mhz = course->mhz[course->rounds];
  course->rounds++;
}

/* A line is "VmHWM:      1234 kB". */
long memory_kib(const char *what) {
  char text[4096];
  if (read_short("/proc/self/status", text, sizeof text) <= 0) return 0;
  const char *line = strstr(text, what);
  return line ? strtol(line + strlen(what), NULL, 10) : 0;
}

/* Hot, warmer than at the start, or clocked lower; a device without temperatures may be any of them. */
static int may_be_hot(const Course *course) {
  const Job *job = course->job;
  int now = course->latest_milli_c, mhz = course->rounds ? course->mhz[course->rounds - 1] : 0;
  if (!now) return 1;
  return now >= job->hot_milli_c || now >= course->first_milli_c + job->rise_milli_c || mhz * 50L < course->fastest_mhz * 49L;
}

/* Ten seconds the first time, twice as long each time after. */
static void let_it_cool(Course *course) {
  double left_ms = course->job->pause_ms;
  for (long i = 0; i < course->pauses && left_ms < course->job->longest_pause_ms; i++) left_ms *= 2;
  if (left_ms > course->job->longest_pause_ms) left_ms = course->job->longest_pause_ms;
  course->pauses++;
  course->paused_ms += left_ms;
  for (; left_ms > 0; left_ms -= 1000) {
    double now_ms = left_ms < 1000 ? left_ms : 1000;
    struct timespec nap = {now_ms >= 1000, now_ms >= 1000 ? 0 : (long)(now_ms * 1e6)};
    nanosleep(&nap, NULL);
    require_host(course->job);
  }
}

Verdict judge_round(Course *course, double slowness) {
  const Job *job = course->job;
  if (job->slow <= 0 || slowness <= 0) return GO_ON; /* no guard, or a round that tells nothing */
  if (!may_be_hot(course)) slowness = 0;
  course->slow_rounds = slowness > job->slow ? course->slow_rounds + 1 : 0;
  course->hot_rounds = slowness > job->throttled ? course->hot_rounds + 1 : 0;
  if (course->slow_rounds < IN_A_ROW) return GO_ON;
  if (course->hot_rounds >= IN_A_ROW || course->pauses >= job->pauses) return END;
  course->slow_rounds = course->hot_rounds = 0;
  let_it_cool(course);
  return REDO;
}
