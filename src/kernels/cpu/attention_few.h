// Attention of a few queries at the end of a long text, as in decoding: straight over the cache, nothing is gathered.
// Internal to kernels/cpu.
#pragma once

#include <vector>

#include "kernels/kernels.h"

namespace instruct::kernels::cpu {

// A task is one stretch of keys and one key/value head, for all query heads that read it, of every query whose stretch
// holds the same keys: branches behind one prefix read it once. Where a query has several stretches, finish() puts them
// together: with o_c the values of stretch c and l_c the log of its softmax denominator, o = sum_c e^(l_c - l) o_c,
// l = log sum_c e^l_c. Stretches are of fixed length, so a result depends neither on the threads nor on what is
// computed beside it.
class FewQueries {
 public:
  FewQueries(Stream& stream, const AttentionArgs& args, Tensor& output, Tensor& log_sum);

  // Queries that share keys should follow each other.
  void add(const tensor::QuerySegment& segment);
  std::int64_t tasks() const { return static_cast<std::int64_t>(stretches_.size()) * heads_ / group_; }
  void run(std::int64_t task);  // any thread, once each
  void finish();                // when all tasks are done

 private:
  struct Query {
    std::int64_t token = 0;
    std::int64_t stretches = 0;
    std::int64_t first = 0;     // position of its first key
    std::int64_t position = 0;  // of itself
    std::vector<float> parts;   // [stretches, heads, 1 + width]: l_c and o_c; empty for one stretch
  };
  // Keys read together by `queries` neighbouring queries, as stretch `number` of each.
  struct Stretch {
    std::size_t first_query = 0;
    std::int64_t queries = 0;
    std::int64_t number = 0;
    std::vector<tensor::KeyRange> keys;  // in order of position
  };

  void store(std::int64_t token, std::int64_t head, float log_sum, const float* values);

  Stream& stream_;
  const AttentionArgs& args_;
  Tensor& output_;
  Tensor& log_sum_;
  std::int64_t heads_;
  std::int64_t group_;  // query heads a key/value head
  std::vector<Query> queries_;
  std::vector<Stretch> stretches_;
  std::vector<std::size_t> last_;  // the stretches of the last query, by number
};

}  // namespace instruct::kernels::cpu
