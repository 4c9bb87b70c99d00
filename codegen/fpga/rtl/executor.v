// Execute engine: one output tile. For every tap and input block it brings in a tile of weights (one output channel per
// cycle, behind those in use) and streams the tile's pixels through the array into the accumulators.
module executor #(
    parameter ROWS = 8,
    parameter COLS = 8,
    parameter SUM = 19,  // bits of the sum of a column
    parameter IN_AW = 10,
    parameter W_AW = 10,
    parameter ACC_AW = 8
) (
    input wire clk,
    input wire start,
    input wire [255:0] instruction,
    output reg done,
    // input buffer and weight buffer
    output wire in_read,
    output wire [IN_AW-1:0] in_address,
    input wire [ROWS*8-1:0] in_word,
    output wire w_read,
    output wire [W_AW-1:0] w_address,
    input wire [ROWS*8-1:0] w_word,
    // accumulators
    output reg bank,
    output reg busy,
    output wire acc_read,
    output wire [ACC_AW-1:0] acc_read_address,
    input wire [COLS*32-1:0] acc_word,
    output reg acc_write,
    output reg [ACC_AW-1:0] acc_write_address,
    output reg [COLS*32-1:0] acc_result
);
  localparam IDLE = 2'd0, FILL = 2'd1, RUN = 2'd2, DRAIN = 2'd3;
  reg [1:0] state;
  reg [15:0] cycle, period;
  reg set, maximum;
  reg [15:0] kb_pitch, row_pitch, ystep;
  reg [7:0] xstep, tap_step;
  reg [15:0] last_x, last_y, last_kb;
  reg [7:0] last_kx, last_ky;
  reg [15:0] x, y, kb;
  reg [7:0] kx, ky;
  reg [15:0] kb_base, ky_base, tap_base, row_base, pixel;  // addresses in the input buffer
  reg issuing, first_tile;
  reg [W_AW-1:0] w_next;
  reg [ACC_AW-1:0] place;
  wire last_tap = kx == last_kx && ky == last_ky && kb == last_kb;
  wire filling = (state == FILL || state == RUN) && cycle < COLS;
  wire swap = state == RUN && cycle == 0;
  wire [15:0] kx_base = tap_base + {8'b0, tap_step};
  wire [15:0] next_row = ky_base + row_pitch;
  wire [15:0] next_block = kb_base + kb_pitch;
  wire [15:0] next_tap = kx != last_kx ? kx_base : ky != last_ky ? next_row : next_block;
  wire [15:0] next_line = row_base + ystep;
  assign in_read = issuing;
  assign in_address = pixel[IN_AW-1:0];
  assign w_read = filling;
  assign w_address = w_next;

  always @(posedge clk) begin
    done <= state == DRAIN && cycle == 4;
    if (start) begin
      state <= FILL;
      busy <= 1'b1;
      cycle <= 0;
      set <= instruction[16];
      maximum <= instruction[17];
      bank <= instruction[18];
      kb_base <= instruction[47:32];
      ky_base <= instruction[47:32];
      tap_base <= instruction[47:32];
      row_base <= instruction[47:32];
      pixel <= instruction[47:32];
      w_next <= instruction[48+:W_AW];
      kb_pitch <= instruction[79:64];
      row_pitch <= instruction[95:80];
      ystep <= instruction[111:96];
      xstep <= instruction[119:112];
      tap_step <= instruction[127:120];
      last_x <= instruction[143:128];
      last_y <= instruction[159:144];
      last_kx <= instruction[167:160];
      last_ky <= instruction[175:168];
      last_kb <= instruction[191:176];
      period <= instruction[207:192];
      {x, y, kb, kx, ky} <= 0;
      place <= 0;
      issuing <= 1'b0;
      first_tile <= 1'b1;
    end else begin
      if (filling) w_next <= w_next + 1'b1;
      case (state)
        FILL:
        if (cycle == COLS) begin
          state   <= RUN;
          cycle   <= 0;
          issuing <= 1'b1;
        end else cycle <= cycle + 1'b1;
        RUN: begin
          if (issuing) begin
            place <= place + 1'b1;
            if (x != last_x) begin
              x <= x + 1'b1;
              pixel <= pixel + {8'b0, xstep};
            end else begin
              x <= 0;
              y <= y + 1'b1;
              row_base <= next_line;
              pixel <= next_line;
              if (y == last_y) issuing <= 1'b0;
            end
          end
          if (cycle == period) begin
            cycle <= 0;
            if (last_tap) state <= DRAIN;
            else begin
              issuing <= 1'b1;
              first_tile <= 1'b0;
              x <= 0;
              y <= 0;
              place <= 0;
              tap_base <= next_tap;
              row_base <= next_tap;
              pixel <= next_tap;
              if (kx != last_kx) kx <= kx + 1'b1;
              else begin
                kx <= 0;
                if (ky != last_ky) begin
                  ky <= ky + 1'b1;
                  ky_base <= next_row;
                end else begin
                  ky <= 0;
                  kb <= kb + 1'b1;
                  kb_base <= next_block;
                  ky_base <= next_block;
                end
              end
            end
          end else cycle <= cycle + 1'b1;
        end
        DRAIN:
        if (cycle == 4) begin
          state <= IDLE;
          busy  <= 1'b0;
        end else cycle <= cycle + 1'b1;
        default: ;
      endcase
    end
  end

  // The pipeline behind an issued pixel: word, products, sums of four, sum, accumulate.
  reg w_arrives;
  reg [$clog2(COLS)-1:0] column_next;
  reg [3:0] moving, initial_tile;
  reg [ACC_AW-1:0] place1, place2, place3, place4;
  assign acc_read = moving[2];
  assign acc_read_address = place3;
  always @(posedge clk) begin
    w_arrives <= filling;
    column_next <= cycle[$clog2(COLS)-1:0];
    moving <= {moving[2:0], issuing && state == RUN};
    initial_tile <= {initial_tile[2:0], first_tile && set};
    place1 <= place;
    place2 <= place1;
    place3 <= place2;
    place4 <= place3;
    acc_write <= moving[3];
    acc_write_address <= place4;
  end
  genvar c;
  generate
    for (c = 0; c < COLS; c = c + 1) begin : columns
      wire signed [SUM-1:0] sum;
      wire signed [31:0] wide = sum;
      wire signed [31:0] old = acc_word[c*32+:32];
      column unit (
          .clk (clk),
          .a   (in_word),
          .load(w_arrives && column_next == c),
          .w   (w_word),
          .swap(swap),
          .sum (sum)
      );
      always @(posedge clk)
        acc_result[c*32+:32] <= initial_tile[3] ? wide : maximum ? (wide > old ? wide : old) : old + wide;
    end
  endgenerate
endmodule
