#!/bin/sh
# Makes the picture (demo.h264) and the sound (demo.opus) of `headwater demo`: ten seconds that loop without a seam.
# Both are drawn and computed here, from nothing; needs ffmpeg with libx264, libopus and libfreetype, and the font
# DejaVu Sans (Debian: ffmpeg, fonts-dejavu-core).
#
# The reader (src/demo/clip.rs) relies on this much:
#   demo.h264  Annex B, an access unit delimiter before each picture, 25 pictures a second, no B-frames,
#              a key frame every two seconds and first.
#   demo.opus  Ogg, 48 kHz stereo, one Opus packet for each 20 ms.
# Everything that moves has a period that divides ten seconds, and the ball lands on each full second, with a note:
# who watches sees at once whether sound and picture are together.
set -eu
cd "$(dirname "$0")"
seconds=10
fps=25
font=${FONT:-/usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf}
mono=${MONO:-/usr/share/fonts/truetype/dejavu/DejaVuSansMono-Bold.ttf}

ffmpeg -hide_banner -loglevel warning -y \
    -f lavfi -i "color=c=black:s=960x540:r=1:d=1,format=rgb24,geq=r='10+14*Y/H':g='26+46*Y/H+12*X/W':b='52+64*Y/H',loop=-1:1,setpts=N/$fps/TB,fps=$fps" \
    -f lavfi -i "color=c=black:s=72x72:r=1:d=1,format=rgba,geq=r='255-70*hypot(X-26,Y-22)/50':g='196-110*hypot(X-26,Y-22)/50':b='72':a='255*clip(35.5-hypot(X-36,Y-36),0,1)',loop=-1:1,setpts=N/$fps/TB,fps=$fps" \
    -f lavfi -i "color=c=black:s=120x120:r=1:d=1,format=rgba,geq=r='235':g='245':b='250':a='255*max(clip(2-abs(hypot(X-60,Y-60)-56),0,1),lt(abs(X-60),2.5)*lt(Y,60)*gt(Y,12))',loop=-1:1,setpts=N/$fps/TB,fps=$fps" \
    -f lavfi -i "color=c=black:s=960x4:r=1:d=1,format=rgba,geq=r='140':g='210':b='230':a='180',loop=-1:1,setpts=N/$fps/TB,fps=$fps" \
    -filter_complex "
        [2]rotate=a='2*PI*t/$seconds':c=none:ow=iw:oh=ih[dial];
        [0][3]overlay=0:478[floor];
        [floor][1]overlay=x='(W-w)/2+340*sin(2*PI*t/5)':y='406-190*abs(sin(PI*t))':eval=frame[ball];
        [ball][dial]overlay=800:40[all];
        [all]drawtext=fontfile=$font:text='Headwater demo':fontsize=54:fontcolor=white:x=48:y=52,
        drawtext=fontfile=$font:text='published to an origin, relayed to an edge, played here':fontsize=21:fontcolor=0xa9d6e5:x=50:y=124,
        drawtext=fontfile=$mono:text='%{pts\:hms}':fontsize=30:fontcolor=white:x=48:y=490:fix_bounds=1,
        drawtext=fontfile=$mono:text='%{frame_num}':start_number=0:fontsize=30:fontcolor=0xa9d6e5:x=W-tw-48:y=490,
        format=yuv420p[v]" \
    -map "[v]" -t $seconds -c:v libx264 -preset veryslow -profile:v baseline -level 3.1 -crf 20 \
    -maxrate 900k -bufsize 900k -bf 0 -g $((2 * fps)) -keyint_min $((2 * fps)) -sc_threshold 0 \
    -x264-params "aud=1:repeat-headers=1:slices=1" -bsf:v filter_units=remove_types=6 \
    -flags +bitexact -fflags +bitexact -f h264 demo.h264

# One decaying note for each full second, an octave below it a softer answer half a second later. Each is written as
# a function of the time since it was struck, modulo the length, so that the end rings on into the beginning.
voice() { # $1: 0 left, 1 right
    awk -v right="$1" -v len=$seconds 'BEGIN {
        n = split("523.25 659.26 783.99 880.00 783.99 659.26 587.33 783.99 659.26 587.33", hz, " ")
        for (i = 0; i < n; i++) {
            pan = right ? 0.5 + 0.3 * ((i % 2) * 2 - 1) : 0.5 - 0.3 * ((i % 2) * 2 - 1)
            printf "%s%s", (i ? "+" : ""), note(i, hz[i + 1], 0.22 * pan, 5)
            printf "+%s", note(i + 0.5, hz[i + 1] / 2, 0.16 * (1 - pan), 3)
        }
    }
    function note(at, f, loud, decay,   since) {
        since = sprintf("mod(t+%g,%d)", len - at, len)
        return sprintf("%g*(1-exp(-150*%s))*exp(-%g*%s)*sin(2*PI*%g*%s)", loud, since, decay, since, f, since)
    }'
}
# Three rounds are encoded and the middle one is kept: the encoder is then in the same state at both ends.
ffmpeg -hide_banner -loglevel warning -y -f lavfi \
    -i "aevalsrc=exprs='$(voice 0)|$(voice 1)':s=48000:c=stereo:d=$((3 * seconds))" \
    -c:a libopus -b:a 64k -vbr on -frame_duration 20 -application audio -flags +bitexact -f ogg demo.tmp.opus
ffmpeg -hide_banner -loglevel warning -y -ss $seconds -i demo.tmp.opus -t $seconds -c copy \
    -flags +bitexact -fflags +bitexact -map_metadata -1 -f ogg demo.opus
rm demo.tmp.opus
ls -l demo.h264 demo.opus
