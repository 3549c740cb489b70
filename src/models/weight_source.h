// Where a model's tensors come from, under their Hugging Face names.
#pragma once

#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace instruct::models {

class WeightSource {
 public:
  virtual ~WeightSource() = default;
  virtual bool has(const std::string& name) const = 0;
  // The tensor as stored (any dtype, block-quantised too), rows in Hugging Face order. Raises NotFound naming file and
  // tensor, or Unsupported naming its type.
  virtual tensor::Tensor get(const std::string& name) const = 0;
  // Lets the system start reading the tensors from disk while other work is done.
  virtual void read_ahead() const = 0;
  // Gives back memory that reading has filled, where the tensors are mapped. They can be read again.
  virtual void release() const = 0;
  // For messages: the file or folder.
  virtual std::string origin() const = 0;
};

}  // namespace instruct::models
