"""What does CI say? Everything that talks to Tencent Cloud Infinite."""
