// Attention of a few queries at the end of a long text, as in decoding: straight over the cache, nothing is gathered.
// Internal to kernels/cpu.
#pragma once

#include <vector>

#include "kernels/kernels.h"

namespace instruct::kernels::cpu {

// A task is one stretch of a query's keys and one key/value head, for all query heads that read it. Where there are
// several stretches, finish() puts them together: with o_c the values of stretch c and l_c the log of its softmax
// denominator, o = sum_c e^(l_c - l) o_c, l = log sum_c e^l_c. Stretches are of fixed length, so a result depends
// neither on the threads nor on what is computed beside it.
class FewQueries {
 public:
  FewQueries(Stream& stream, const AttentionArgs& args, Tensor& output, Tensor& log_sum);

  // The segment must outlive this object.
  void add(const tensor::QuerySegment& segment);
  std::int64_t tasks() const { return static_cast<std::int64_t>(tasks_.size()); }
  void run(std::int64_t task);  // any thread, once each
  void finish();                // when all tasks are done

 private:
  struct Query {
    const tensor::QuerySegment* segment = nullptr;
    std::int64_t token = 0;
    std::int64_t first = 0, last = 0;  // of its keys, those that it sees
    std::vector<float> parts;          // [stretches, heads, 1 + width]: l_c and o_c; empty for one stretch
  };
  struct Task {
    std::size_t query = 0;
    std::int64_t stretch = 0;
    std::int64_t key_head = 0;
  };

  std::int64_t stretches(const Query& query) const;
  void store(std::int64_t token, std::int64_t head, float log_sum, const float* values);

  Stream& stream_;
  const AttentionArgs& args_;
  Tensor& output_;
  Tensor& log_sum_;
  std::int64_t heads_;
  std::int64_t group_;  // query heads a key/value head
  std::vector<Query> queries_;
  std::vector<Task> tasks_;
};

}  // namespace instruct::kernels::cpu
