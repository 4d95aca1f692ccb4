"""What is computed about decoding: trained exit heads, agreement, tuned settings, speed."""
