// Feeds one engine with its own instructions, in order. While one runs, the next is fetched: eight words of 32 bits.
// An instruction starts when the engine is idle and the semaphores that it waits for are up (`permit`).
module sequencer #(
    parameter SLOTS = 256,
    parameter AW = 8
) (
    input wire clk,
    input wire go,
    input wire run,  // within a step
    input wire [AW:0] count,  // instructions in this step
    input wire we,
    input wire [AW+2:0] waddr,
    input wire [31:0] wdata,
    input wire permit,
    input wire done,  // the engine's last cycle
    output reg [255:0] next,
    output reg [7:0] signal,  // semaphores that the running instruction raises at its end
    output wire start,
    output wire finished
);
  reg [AW:0] pc;
  reg [3:0] word;
  reg have, busy;
  wire [31:0] rdata;
  ram #(
      .WIDTH(32),
      .DEPTH(SLOTS * 8),
      .AW(AW + 3)
  ) program_ram (
      .clk(clk),
      .we(we),
      .waddr(waddr),
      .wdata(wdata),
      .re(1'b1),
      .raddr({pc[AW-1:0], word[2:0]}),
      .rdata(rdata)
  );
  assign start = have && !busy && permit;
  assign finished = pc == count && !have && !busy;
  always @(posedge clk) begin
    if (go) begin
      pc <= 0;
      word <= 0;
      have <= 1'b0;
      busy <= 1'b0;
    end else begin
      if (run && !have && pc != count) begin
        if (word != 0) next <= {rdata, next[255:32]};
        if (word == 8) begin
          word <= 0;
          have <= 1'b1;
          pc   <= pc + 1'b1;
        end else word <= word + 1'b1;
      end
      if (start) begin
        have   <= 1'b0;
        busy   <= 1'b1;
        signal <= next[15:8];
      end
      if (done) busy <= 1'b0;
    end
  end
endmodule
