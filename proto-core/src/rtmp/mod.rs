//! RTMP: the server and client machines (Adobe RTMP 1.0 with what encoders and players really send).
