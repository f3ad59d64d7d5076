variable "bucket" {}
variable "folder" {}

data "aws_s3_bucket" "release" { bucket = var.bucket }

resource "aws_cloudformation_stack" "stopper" {
  name         = "rtc-segment-stopper"
  template_url = "https://${data.aws_s3_bucket.release.bucket_regional_domain_name}/${var.folder}cloudformation.json"
  capabilities = ["CAPABILITY_IAM"]
  parameters   = { CodeBucket = var.bucket, CodePrefix = var.folder, RtcPlatform = "volcengine" }
}

output "event_queue_url" { value = aws_cloudformation_stack.stopper.outputs["EventQueueUrl"] }
