/* What is to be timed: read from the job file that job.py writes. */
#ifndef JOB_H
#define JOB_H
#include <stddef.h>
#include <stdint.h>

typedef struct { const char *name; const unsigned char *bytes; size_t count; } GivenInput;

typedef struct {
  const unsigned char *bytes;
  size_t count;
  GivenInput *inputs;
  int input_count;
} JobModel;

typedef struct {
  const char *library, *cpus; /* cpus: "0,1", or "-" for those that are allowed */
  long threads, opt_level, wants_outputs;
  long warmup_runs, block_runs, min_rounds, min_samples, max_samples;
  double warmup_ms, block_ms, min_ms, max_ms, half_width;
  JobModel *models;
  int model_count;
  int parent; /* the process that waits for this one */
} Job;

Job parse_job(unsigned char *bytes, size_t count); /* gives up where it is malformed; keeps pointing into bytes */
#endif
