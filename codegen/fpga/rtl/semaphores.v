// Eight counting semaphores: an instruction takes one of each that it waits for, and gives one of each that it signals.
// Each has one engine that gives and one that takes. "Free" ones start with the number of buffers, "full" ones with zero.
module semaphores #(
    parameter BUFFERS = 2
) (
    input wire clk,
    input wire go,
    input wire [7:0] give,
    input wire [7:0] take,
    output reg [7:0] up
);
  reg [3:0] level[0:7];
  integer i;
  always @(posedge clk)
    for (i = 0; i < 8; i = i + 1)
      if (go) level[i] <= (i % 2 == 1) ? BUFFERS : 0;  // odd: free
      else level[i] <= level[i] + {3'b0, give[i]} - {3'b0, take[i]};
  always @* for (i = 0; i < 8; i = i + 1) up[i] = level[i] != 0;
endmodule
