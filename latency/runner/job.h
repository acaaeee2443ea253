/* What is to be timed: read from the job file that job.py writes. */
#ifndef JOB_H
#define JOB_H
#include <stddef.h>
#include <stdint.h>

enum { MAX_ANCHORS = 2 };

typedef struct { const char *name; const unsigned char *bytes; size_t count; } GivenInput;

typedef struct {
  const unsigned char *bytes;
  size_t count;
  GivenInput *inputs;
  int input_count;
} JobModel;

typedef struct {
  const char *library, *cpus; /* cpus: "0,1", or "-" for those that are allowed */
  const char *provider, *sysfs;
  long threads, opt_level, wants_outputs;
  long warmup_runs, block_runs, min_rounds, min_samples, max_samples;
  double warmup_ms, block_ms, min_ms, max_ms, half_width;
  long anchors;       /* the first models, timed in every round until the last of the others is done */
  long reference_ns[MAX_ANCHORS]; /* their medians when the device was cool; 0: not known */
  long pauses;        /* how often it may be left to cool */
  long hot_milli_c, rise_milli_c; /* a temperature, and a rise of it, that can be why it is slow */
  double pause_ms, longest_pause_ms, slow, throttled; /* an anchor's time over its reference from which to pause, and to end */
  JobModel *models;
  int model_count;
  const char *path; /* of the job's file: there for as long as somebody wants its result */
  int parent;       /* the process that waits for this one */
  int has_cpu_time; /* the calling thread does all of the work: its CPU time tells what other processes took */
} Job;

Job parse_job(unsigned char *bytes, size_t count); /* gives up where it is malformed; keeps pointing into bytes */
void require_host(const Job *job);                 /* gives up where nobody waits for the result any more */
#endif
