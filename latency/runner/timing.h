/* Warm-up, rounds and the stopping rule: the same that latency/devices/local.py follows in Python. */
#ifndef TIMING_H
#define TIMING_H
#include "job.h"
#include "ort.h"

typedef struct {
  Loaded loaded;
  int64_t *wall_ns, *cpu_ns; /* cpu_ns: of the calling thread */
  int *round_of;
  long runs, room, rounds, block, next_check;
  int64_t warmup_ns;
  int done;
} Timed;

int warm_up(Timed *model, const Job *job);               /* 0, or 1 where it failed */
int time_rounds(Timed *models, int count, const Job *job); /* the same */
double half_width(const Timed *model, int with_cpu_time);
#endif
