// Memory with one write port and one read port; the read word is there in the next cycle, and stays while `re` is low.
// A word that is read in the cycle in which it is written comes out undefined: the semaphores keep the engines from that.
module ram #(
    parameter WIDTH = 8,
    parameter DEPTH = 16,
    parameter AW = 4
) (
    input wire clk,
    input wire we,
    input wire [AW-1:0] waddr,
    input wire [WIDTH-1:0] wdata,
    input wire re,
    input wire [AW-1:0] raddr,
    output reg [WIDTH-1:0] rdata
);
  (* ram_style = "block", no_rw_check *) reg [WIDTH-1:0] cells[0:DEPTH-1];
  always @(posedge clk) begin
    if (we) cells[waddr] <= wdata;
    if (re) rdata <= cells[raddr];
  end
endmodule
