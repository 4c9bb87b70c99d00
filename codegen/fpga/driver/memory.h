// The memory of the test bench: ideal, or a DRAM shared by reads and writes. One call of step() per clock cycle.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <deque>
#include <vector>

struct MemoryTiming {
  long read_latency, write_latency, shared, interval, chunk, page_bytes, page_cycles, turnaround, refresh_period, refresh_cycles;
};

// What the accelerator drives in a cycle, and what it is given in the next one.
struct Port {
  bool read_valid, write_valid, data_valid;
  uint32_t read_address, write_address;
  unsigned read_beats, write_beats;
  const uint8_t *write_data;
  bool read_ready, write_ready, data_ready, read_data_valid, acknowledged;
  const uint8_t *read_data;
};

class Memory {
 public:
  Memory(MemoryTiming timing, unsigned bus) : timing_(timing), bus_(bus) {}
  std::vector<uint8_t> bytes;

  void step(Port &port) {
    accept(port);
    port.read_data_valid = false;
    port.acknowledged = false;
    if (timing_.shared)
      serve(port);
    else
      ideal(port);
    while (!acks_.empty() && acks_.front() <= now_) {
      if (port.acknowledged) break;
      acks_.pop_front();
      port.acknowledged = true;
    }
    port.read_ready = reads_.empty();
    port.write_ready = writes_.size() < 4;
    port.data_ready = buffered_ < kWriteBuffer;
    ++now_;
  }

 private:
  struct Burst {
    uint32_t address;
    unsigned beats, done, arrived;
    long eligible;
  };
  static constexpr unsigned kWriteBuffer = 512;

  void accept(Port &port) {
    if (port.read_valid && port.read_ready) reads_.push_back({port.read_address, port.read_beats, 0, 0, now_ + timing_.read_latency - 1});
    if (port.write_valid && port.write_ready) writes_.push_back({port.write_address, port.write_beats, 0, 0, 0});
    if (port.data_valid && port.data_ready)
      for (auto &burst : writes_)
        if (burst.arrived < burst.beats) {
          std::memcpy(at(burst.address + burst.arrived * bus_), port.write_data, bus_);
          ++burst.arrived;
          ++buffered_;
          break;
        }
  }

  void ideal(Port &port) {
    if (!reads_.empty() && reads_.front().eligible <= now_) beat(port);
    if (!writes_.empty()) drain(writes_.front().arrived - writes_.front().done);
  }

  // One chunk after the other; the bus is taken until `free_`.
  void serve(Port &port) {
    if (left_ > 0 && now_ >= free_) {  // a beat of the chunk in progress
      if (reading_)
        beat(port);
      else
        drain(1);
      --left_;
      free_ = now_ + timing_.interval;
    }
    if (left_ > 0 || now_ + 1 < free_) return;
    bool read = !reads_.empty() && reads_.front().eligible <= now_, write = false;
    if (!writes_.empty()) {
      auto &w = writes_.front();
      write = w.arrived - w.done >= size(w);
    }
    if (!read && !write) return;
    bool chosen = read && write ? !reading_ : read;
    auto &burst = chosen ? reads_.front() : writes_.front();
    uint32_t address = burst.address + burst.done * bus_, page = address / timing_.page_bytes;
    long wait = (chosen != reading_) * timing_.turnaround + (page != page_) * timing_.page_cycles;
    if (now_ >= refresh_) {
      wait += timing_.refresh_cycles;
      refresh_ = (now_ / timing_.refresh_period + 1) * timing_.refresh_period;
    }
    left_ = size(burst);
    reading_ = chosen;
    page_ = page;
    free_ = now_ + 1 + wait;
  }

  unsigned size(const Burst &burst) const {  // beats of its next chunk
    uint32_t address = burst.address + burst.done * bus_;
    unsigned in_page = (timing_.page_bytes - address % timing_.page_bytes + bus_ - 1) / bus_;
    return std::min<unsigned>({(unsigned)timing_.chunk, in_page, burst.beats - burst.done});
  }

  void beat(Port &port) {
    auto &burst = reads_.front();
    port.read_data_valid = true;
    port.read_data = at(burst.address + burst.done * bus_);
    if (++burst.done == burst.beats) reads_.pop_front();
  }

  void drain(unsigned beats) {
    auto &burst = writes_.front();
    burst.done += beats;
    buffered_ -= beats;
    if (burst.done == burst.beats) {
      writes_.pop_front();
      acks_.push_back(now_ + timing_.write_latency);
    }
  }

  uint8_t *at(uint64_t address) {
    if (address + bus_ > bytes.size()) {
      std::fprintf(stderr, "the accelerator reaches byte %llu of a memory of %zu\n", (unsigned long long)address, bytes.size());
      std::exit(3);
    }
    return bytes.data() + address;
  }

  MemoryTiming timing_;
  unsigned bus_;
  std::deque<Burst> reads_, writes_;
  std::deque<long> acks_;
  long now_ = 0, free_ = 0, refresh_ = 0;
  unsigned left_ = 0, buffered_ = 0;
  bool reading_ = true;
  uint32_t page_ = ~0u;
};
