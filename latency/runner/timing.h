/* Warm-up, rounds and the stopping rule: the same that latency/devices/local.py follows in Python. */
#ifndef TIMING_H
#define TIMING_H
#include "course.h"
#include "job.h"
#include "ort.h"

typedef struct {
  Loaded loaded;
  int64_t *wall_ns, *cpu_ns; /* cpu_ns: of the calling thread */
  int *round_of;
  long runs, room, rounds, block, next_check;
  int64_t warmup_ns;
  double spent_ms, latest_ns; /* timed so far; what a run took at the end of the warm-up */
  int anchor;          /* the place of the anchor that is nearest in latency; -1 without anchors */
  int is_anchor;       /* never done by itself */
  const char *stopped; /* why no more is timed; NULL while there is */
} Timed;

int warm_up(Timed *model, const Job *job);               /* 0, or 1 where it failed */
int time_rounds(Timed *models, int count, const Job *job, Course *course); /* the same */
double half_width(const Timed *model, int with_cpu_time);
int64_t round_median(const Timed *model, long round, int with_cpu_time); /* of runs that were not preempted; all of them if all were */
#endif
