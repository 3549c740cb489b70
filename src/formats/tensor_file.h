// Named tensors in a file, whatever its format.
#pragma once

#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace instruct::formats {

class TensorFile {
 public:
  virtual ~TensorFile() = default;
  virtual const std::string& origin() const = 0;
  virtual std::vector<std::string> names() const = 0;
  virtual bool has(const std::string& name) const = 0;
  // A view into the file, or a copy where the file's layout is not that of a tensor. Raises NotFound or Unsupported.
  virtual tensor::Tensor tensor(const std::string& name) const = 0;
  // Lets the system start reading the tensors from disk.
  virtual void read_ahead() const = 0;
  // Gives back memory that reading has filled; tensors can still be read.
  virtual void release() const = 0;
};

}  // namespace instruct::formats
